"""Several devices on one video: sequence parallelism (Ulysses x ring), branches and windows on ranks of their own.

Start with ``torchrun --nproc-per-node N -m skyreels_audio generate …``. Every rank runs the whole pipeline on the same
inputs; only the transformer's work is divided.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
import torch.distributed as dist
from diffusers.models._modeling_parallel import ContextParallelConfig
from torch.distributed.device_mesh import init_device_mesh

from skyreels_audio.acceleration.context_parallel import split_tokens
from skyreels_audio.acceleration.ranks import local_rank, world_size
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

FLOPS_PER_BYTE = 1000
"""What a rank computes while it exchanges a byte: 150 TFLOP/s (half of an A800's bfloat16 peak), 150 GB/s (NVLink)."""


@dataclass(frozen=True)
class Parallel:
    """How ranks share the work: ulysses · ring on the tokens of one evaluation, branch · window groups of those."""

    ulysses: int = 1
    ring: int = 1
    branch: int = 1
    window: int = 1

    @property
    def tokens(self) -> int:
        """Ranks that share the tokens of one evaluation."""
        return self.ulysses * self.ring

    @property
    def calls(self) -> int:
        """Groups of ranks, each with its own evaluations (windows and branches) of a step."""
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
    if world_size() == 1:
        yield torch.device(device)
        return
    place = torch.device(device)
    if place.type == "cuda":
        place = torch.device("cuda", local_rank())
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
        The group for `generation.step.Distributed` to spread evaluations over: this rank and its like in the others.
    """
    shape = (parallel.calls, parallel.ring, parallel.ulysses)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("calls", "ring", "ulysses"))
    if parallel.tokens > 1:
        config = ContextParallelConfig(ring_degree=parallel.ring, ulysses_degree=parallel.ulysses, mesh=mesh)
        config.setup(dist.get_rank(), dist.get_world_size(), device, mesh)
        split_tokens(transformer, config)
    return mesh["calls"].get_group()
