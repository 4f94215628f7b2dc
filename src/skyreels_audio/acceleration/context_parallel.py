"""The tokens of one evaluation over several ranks (Ulysses x ring), any number of tokens, any attention kernel.

Tokens are divided by diffusers' context parallelism: the split points of `_cp_plan`, its configuration and exchanges.
What diffusers 0.42 does not do itself is done here. Its `ulysses_anything` and `ring_anything` take any number of
tokens, but exclude each other, and its rings merge shares by log-sum-exp, which torch's own kernels do not give on
every device. Here tokens are padded to equal shares and the padding is cut off before attention, so no kernel needs a
mask; a ring gathers keys and values and attends once.

B batch, L video token of one rank, N heads, D head width.
"""

from dataclasses import dataclass
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

from skyreels_audio.models.rope import Rotary, rotate
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel


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
