"""Several devices on one video: sequence parallelism (Ulysses x ring), branches and windows on ranks of their own.

Start with ``torchrun --nproc-per-node N -m skyreels_audio generate …``. Every rank runs the whole pipeline on the same
inputs; only the transformer's work is divided.

Tokens are divided by diffusers' context parallelism: the split points of `_cp_plan`, its configuration and exchanges.
Three things are done differently, so that any number of ranks takes any picture with any attention kernel. Tokens are
padded to equal shares, where diffusers wants them divisible and the paper crops the picture. The padding is cut off
before attention, so no kernel needs a mask. A ring gathers keys and values and attends once, where diffusers gathers
them too, attends to each share and merges by log-sum-exp, which torch's own kernels do not give on every device.

B batch, L video token of one rank, N heads, D head width.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.hooks.context_parallel import ContextParallelGatherHook, ContextParallelSplitHook
from diffusers.hooks.hooks import HookRegistry
from diffusers.models._modeling_parallel import ContextParallelConfig, ContextParallelInput
from diffusers.models.attention_dispatch import SeqAllToAllDim, dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, _get_qkv_projections
from torch import Tensor
from torch.distributed import _functional_collectives as collectives
from torch.distributed.device_mesh import init_device_mesh

from skyreels_audio.generation.calls import Call, Evaluate
from skyreels_audio.models.rope import Rotary, rotate
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

FLOPS_PER_BYTE = 1000
"""What a rank computes while it exchanges a byte: 150 TFLOP/s (half of an A800's bfloat16 peak), 150 GB/s (NVLink)."""


@dataclass(frozen=True)
class Parallel:
    """How ranks share the work: ulysses · ring of them on the tokens of one call, branch · window groups of calls."""

    ulysses: int = 1
    ring: int = 1
    branch: int = 1
    window: int = 1

    @property
    def tokens(self) -> int:
        """Ranks that share the tokens of one call."""
        return self.ulysses * self.ring

    @property
    def calls(self) -> int:
        """Groups of ranks, each with its own calls (windows and branches) of a step."""
        return self.branch * self.window

    @classmethod
    def parse(cls, text: str, ranks: int, heads: int) -> "Parallel":
        """Read e.g. "ulysses=2,ring=2" or "branch=3".

        Raises:
            ValueError: unknown or repeated words, not ``ranks`` in all, or heads that Ulysses cannot share equally.
        """
        known = [field.name for field in fields(cls)]
        pairs = [part.strip().partition("=") for part in text.split(",")]
        degrees = {name: int(degree) for name, _, degree in pairs if name in known and degree.isdecimal()}
        if len(degrees) < len(pairs) or 0 in degrees.values():
            raise ValueError(
                f"--parallel {text!r}: write numbers for some of {', '.join(known)}, e.g. ulysses=2,ring=2."
            )
        parallel = cls(**degrees)
        if parallel.tokens * parallel.calls != ranks:
            raise ValueError(
                f"--parallel {text} is for {parallel.tokens * parallel.calls} processes, but {ranks} were started; "
                "the numbers multiply to torchrun's --nproc-per-node (times the nodes)."
            )
        if heads % parallel.ulysses:
            raise ValueError(f"--parallel {text}: ulysses must divide the model's {heads} attention heads.")
        return parallel


def plan_parallel(ranks: int, heads: int, width: int, tokens: int, branches: int, windows: int) -> Parallel:
    """The cheapest use of ``ranks``: of all ways to factorise them, the least computing and exchanging per step.

    Per block and call, L tokens of width M cost 28 L M² + 4 L² M operations (four projections and 4 M feed-forward,
    cross-attention's two, attention). Ulysses sends q, k, v and the output once, a ring gathers k and v, 2 bytes each.
    """
    operations = 28 * tokens * width**2 + 4 * tokens**2 * width

    def cost(parallel: Parallel) -> float:
        rounds = math.ceil(branches / parallel.branch) * math.ceil(windows / parallel.window)
        share = 2 * tokens * width / parallel.tokens  # bytes of one of q, k, v on one rank
        sent = 4 * share * (1 - 1 / parallel.ulysses) + 2 * share * (parallel.ring - 1)
        return rounds * (operations / parallel.tokens + FLOPS_PER_BYTE * sent)

    ways = [
        Parallel(ulysses, ring, branch, ranks // (ulysses * ring * branch))
        for ulysses in range(1, ranks + 1)
        for ring in range(1, ranks // ulysses + 1)
        for branch in range(1, ranks // (ulysses * ring) + 1)
        if heads % ulysses == 0 and ranks % (ulysses * ring * branch) == 0
    ]
    return min(ways, key=cost)


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started; yields this one's device. Without torchrun: just the device.

    A rank that ends ends the others: torchrun stops them, and whoever waits for it on a CPU sees the connection close.

    Args:
        device: "cpu" or "cuda"; of CUDA each process takes the device of its local rank.

    Raises:
        ConnectionError: another rank was lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield torch.device(device)
        return
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    try:
        yield place
    except RuntimeError as error:
        if isinstance(error, dist.DistBackendError) or "gloo" in str(error) or "Connection" in str(error):
            raise ConnectionError(
                f"rank {dist.get_rank()} of {dist.get_world_size()} stops because another rank was lost; "
                "that rank's own message, above or below, says why."
            ) from error
        raise
    dist.destroy_process_group()


def parallelise(
    transformer: SkyReelsAudioTransformer3DModel, parallel: Parallel, device: torch.device
) -> dist.ProcessGroup:
    """Divide the tokens of a transformer as ``parallel`` says, for all processes and once per loaded transformer.

    Every rank must call the transformer at the same time from here on.

    Args:
        transformer: the model.
        parallel: whose degrees multiply to the number of processes.
        device: where this rank computes; an offloaded transformer does not tell.

    Returns:
        The group over which `Spread` is to spread calls: this rank and its like in the other groups.
    """
    shape = (parallel.calls, parallel.ring, parallel.ulysses)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("calls", "ring", "ulysses"))
    if parallel.tokens > 1:
        config = ContextParallelConfig(ring_degree=parallel.ring, ulysses_degree=parallel.ulysses, mesh=mesh)
        config.setup(dist.get_rank(), dist.get_world_size(), device, mesh)
        split_tokens(transformer, config)
    return mesh["calls"].get_group()


class Spread:
    """Evaluates each call of a step on one rank of a group, then gives all velocities to all (for `calls.Together`).

    A window and branch stays with its rank for the run, so that a step cache finds its state again.

    Args:
        evaluate: a rank's own calls, e.g. `calls.Batched`.
        group: the ranks, from `parallelise`.
    """

    def __init__(self, evaluate: Evaluate, group: dist.ProcessGroup) -> None:
        self.evaluate = evaluate
        self.group = group
        self.owners: dict[tuple[str, ...], int] = {}

    def __call__(self, calls: list[Call]) -> list[Tensor]:
        mine = [self.owner(call.conditions.key) == self.group.rank() for call in calls]
        own = iter(self.evaluate([call for is_mine, call in zip(mine, calls, strict=True) if is_mine]))
        velocities = [
            next(own) if is_mine else torch.zeros_like(call.latents_BCTHW)
            for is_mine, call in zip(mine, calls, strict=True)
        ]
        every = torch.cat([velocity.flatten() for velocity in velocities])
        dist.all_reduce(every, group=self.group)  # all but one of the summands are zero
        parts = every.split([velocity.numel() for velocity in velocities])
        return [part.view_as(velocity) for part, velocity in zip(parts, velocities, strict=True)]

    def owner(self, key: tuple[str, ...]) -> int:
        if key not in self.owners:
            load = Counter(self.owners.values())
            self.owners[key] = min(range(self.group.size()), key=lambda rank: load[rank])
        return self.owners[key]


def split_tokens(transformer: SkyReelsAudioTransformer3DModel, config: ContextParallelConfig) -> None:
    """Divide the video tokens of a transformer over the ranks of ``config``'s mesh, along its `_cp_plan`."""
    share = TokenShare(config)
    for name, plan in transformer._cp_plan.items():
        hook = PaddedSplit(plan, share) if isinstance(plan, dict) else PaddedGather([plan], share)
        HookRegistry.check_if_exists_or_initialize(transformer.get_submodule(name)).register_hook(hook, "token_share")
    for block in transformer.blocks:
        attention: Any = block.get_submodule("attn1")
        processor = SharedAttention(share)
        processor._attention_backend = attention.processor._attention_backend
        attention.set_processor(processor)


@dataclass
class TokenShare:
    """How many video tokens there are in all, as the last split found, and who shares them."""

    config: ContextParallelConfig
    tokens: int = 0

    @property
    def ulysses(self) -> dist.ProcessGroup:
        return self.config._ulysses_mesh.get_group()

    @property
    def ring(self) -> dist.ProcessGroup:
        return self.config._ring_mesh.get_group()


class PaddedSplit(ContextParallelSplitHook):
    """Pads tokens with zeros to a multiple of the ranks before diffusers' split."""

    def __init__(self, metadata: Any, share: TokenShare) -> None:
        super().__init__(metadata, share.config)
        self.share = share

    def _prepare_cp_input(self, x: Tensor, cp_input: ContextParallelInput) -> Tensor:
        if x.ndim != cp_input.expected_dims:  # a timestep per sample, not per token
            return x
        self.share.tokens = x.shape[cp_input.split_dim]
        missing = -self.share.tokens % self.parallel_config._flattened_mesh.size()
        after = (0, 0) * (x.ndim - 1 - cp_input.split_dim)
        return super()._prepare_cp_input(F.pad(x, (*after, 0, missing)), cp_input)


class PaddedGather(ContextParallelGatherHook):
    """Cuts the padding off after diffusers' gather."""

    def __init__(self, metadata: Any, share: TokenShare) -> None:
        super().__init__(metadata, share.config)
        self.share = share

    def post_forward(self, module: torch.nn.Module, output: Tensor) -> Tensor:
        gathered: Any = super().post_forward(module, output)
        return gathered[:, : self.share.tokens]


class SharedAttention(WanAttnProcessor):
    """Wan's self-attention when tokens are divided over ranks (Fang and Zhao 2024, "USP")."""

    def __init__(self, share: TokenShare) -> None:
        super().__init__()
        self.share = share

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Rotary | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is None and attention_mask is None and rotary_emb is not None
        query, key, value = _get_qkv_projections(attn, hidden_states, hidden_states)
        rotary = rotary_emb[0][..., 0::2], rotary_emb[1][..., 1::2]  # Wan's tables name every angle twice
        query_BLND = rotate(attn.norm_q(query).unflatten(2, (attn.heads, -1)), rotary)
        key_BLND = rotate(attn.norm_k(key).unflatten(2, (attn.heads, -1)), rotary)
        value_BLND = value.unflatten(2, (attn.heads, -1))

        # Ulysses: some tokens of all heads become all tokens (of this place in the ring) of some heads.
        heads_3B = SeqAllToAllDim.apply(self.share.ulysses, torch.cat([query_BLND, key_BLND, value_BLND]), 2, 1)
        query_BLND, key_BLND, value_BLND = heads_3B.chunk(3)
        if self.share.ring.size() > 1:
            gathered = collectives.all_gather_tensor(torch.cat([key_BLND, value_BLND]), 1, self.share.ring)
            key_BLND, value_BLND = gathered.chunk(2)
        tokens = slice(self.share.tokens)
        attended_BLND = dispatch_attention_fn(
            query_BLND, key_BLND[:, tokens], value_BLND[:, tokens], backend=self._attention_backend
        )
        attended_BLND = SeqAllToAllDim.apply(self.share.ulysses, attended_BLND, 1, 2)
        return attn.to_out[1](attn.to_out[0](attended_BLND.flatten(2).type_as(hidden_states)))
