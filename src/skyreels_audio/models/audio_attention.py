"""Audio tokens, the cross-attention from video tokens to them, and the block that holds it.

Legend: B batch, L video token, A audio token, D audio feature or head width, E projected audio width, N heads,
M model width.
"""

from typing import Any, NamedTuple

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn

from skyreels_audio.models.rope import Rotary, rotary_table, rotate

ALIGNED_CONTENT = 0.25
"""Scale of fresh query and key weights under `align`: content is then about a fifth as long as the positional bias."""

MASKING_BACKENDS = (
    AttentionBackendName.NATIVE,
    AttentionBackendName._NATIVE_MATH,
    AttentionBackendName._NATIVE_EFFICIENT,
    AttentionBackendName._NATIVE_CUDNN,
)
"""Backends that take a mask; flash and sage kernels do not."""


class AudioContext(NamedTuple):
    """What audio attention needs besides video tokens, the same for every block and every step of a run."""

    tokens_BAE: Tensor
    query_rotary: Rotary | None
    key_rotary: Rotary | None
    mask_BNLA: Tensor | None
    """True where a video token may attend to an audio token; broadcasts over batch and heads. None: everywhere."""


class AudioProjector(nn.Module):
    """Whisper features [B, A, D] → audio tokens [B, A, E], each seeing ±2 neighbours (±40 ms)."""

    def __init__(self, audio_dim: int, width: int):
        super().__init__()
        self.norm_in = FP32LayerNorm(audio_dim)
        self.proj_in = nn.Linear(audio_dim, width)
        self.act = nn.GELU()
        self.conv = nn.Conv1d(width, width, kernel_size=5, padding=2, groups=8)
        self.proj_out = nn.Linear(width, width)
        self.norm_out = FP32LayerNorm(width)

    def forward(self, features_BAD: Tensor) -> Tensor:
        features_BAD = features_BAD.to(self.proj_in.weight.dtype)
        hidden_BAE = self.act(self.proj_in(self.norm_in(features_BAD)))
        hidden_BAE = hidden_BAE + self.act(self.conv(hidden_BAE.transpose(1, 2))).transpose(1, 2)
        return self.norm_out(self.proj_out(hidden_BAE))


class AudioAttnProcessor:
    """The attention product of `AudioAttention`, on diffusers' attention backends.

    Under context parallelism queries are split and keys and values are whole on every rank, so nothing is exchanged:
    the parallel configuration diffusers sets here is not used.
    """

    _attention_backend = None
    _parallel_config = None

    def __call__(self, query_BLND: Tensor, key_BAND: Tensor, value_BAND: Tensor, mask_BNLA: Tensor | None) -> Tensor:
        backend = self._attention_backend
        if mask_BNLA is None:
            return dispatch_attention_fn(query_BLND, key_BAND, value_BAND, backend=backend)
        if backend not in MASKING_BACKENDS:
            backend = AttentionBackendName.NATIVE
        # A row without any reachable token is NaN in some kernels: let it see all tokens, then erase what it saw.
        reaches_BNL1 = mask_BNLA.any(dim=-1, keepdim=True)
        attended_BLND = dispatch_attention_fn(
            query_BLND, key_BAND, value_BAND, attn_mask=mask_BNLA | ~reaches_BNL1, backend=backend
        )
        return attended_BLND * reaches_BNL1.transpose(1, 2)


class AudioAttention(nn.Module, AttentionModuleMixin):
    """Cross-attention from video to audio tokens: QK-RMS-norm across heads, 1-D RoPE, zero-initialised output."""

    _default_processor_cls = AudioAttnProcessor
    _available_processors = [AudioAttnProcessor]
    _supports_qkv_fusion = False
    processor: AudioAttnProcessor

    def __init__(self, dim: int, heads: int, audio_width: int, eps: float):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(audio_width, dim)
        self.to_v = nn.Linear(audio_width, dim)
        self.norm_q = nn.RMSNorm(dim, eps=eps)
        self.norm_k = nn.RMSNorm(dim, eps=eps)
        output = nn.Linear(dim, dim)
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
        self.to_out = nn.ModuleList([output])
        self.processor = AudioAttnProcessor()

    def query(self, hidden_BLM: Tensor, rotary: Rotary | None) -> Tensor:
        query_BLND = self.norm_q(self.to_q(hidden_BLM)).unflatten(2, (self.heads, -1))
        return query_BLND if rotary is None else rotate(query_BLND, rotary)

    def keys_values(self, tokens_BAE: Tensor, rotary: Rotary | None) -> tuple[Tensor, Tensor]:
        """Keys and values [B, A, N, D]. They depend on the audio alone, so they hold for every step of a run."""
        key_BAND = self.norm_k(self.to_k(tokens_BAE)).unflatten(2, (self.heads, -1))
        value_BAND = self.to_v(tokens_BAE).unflatten(2, (self.heads, -1))
        return key_BAND if rotary is None else rotate(key_BAND, rotary), value_BAND

    def forward(self, hidden_states: Tensor, audio: AudioContext) -> Tensor:
        query_BLND = self.query(hidden_states, audio.query_rotary)
        key_BAND, value_BAND = self.keys_values(audio.tokens_BAE, audio.key_rotary)
        attended_BLND = self.processor(query_BLND, key_BAND, value_BAND, audio.mask_BNLA)
        return self.to_out[0](attended_BLND.flatten(2).type_as(hidden_states))

    @torch.no_grad()
    def align(self, offsets_N: Tensor, theta: float, output_std: float) -> None:
        """Start with head n looking `offsets_N[n]` token units after (before, if negative) its own time.

        With a query bias of (cos ωo, sin ωo) on the pair of frequency ω and a key bias of (1, 0), a score is
        Σ cos ω(key - query - o) after rotation: largest where key = query + o. Small weights leave the content a
        say. RMS-norm rescales query and key as a whole, to pairs of length √2, and does not move the maximum.
        """
        cos, sin = rotary_table(offsets_N[None], self.to_q.out_features // self.heads, theta)
        unit_query = torch.stack((cos, sin), dim=-1).flatten()
        unit_key = torch.stack((torch.ones_like(cos), torch.zeros_like(sin)), dim=-1).flatten()
        for projection, norm, bias in ((self.to_q, self.norm_q, unit_query), (self.to_k, self.norm_k, unit_key)):
            projection.weight.mul_(ALIGNED_CONTENT)
            projection.bias.copy_(bias)
            nn.init.ones_(norm.weight)
        nn.init.normal_(self.to_out.get_parameter("0.weight"), std=output_std)


class SkyReelsAudioBlock(WanTransformerBlock):
    """Wan's block with audio attention between text cross-attention and feed-forward, ungated."""

    def __init__(self, dim: int, heads: int, audio_width: int | None, eps: float, **wan: Any):
        super().__init__(dim=dim, num_heads=heads, eps=eps, **wan)
        if audio_width is not None:
            self.audio_norm = FP32LayerNorm(dim, eps)
            self.audio_attn = AudioAttention(dim, heads, audio_width, eps)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        rotary_emb: Rotary,
        audio: AudioContext | None = None,
    ) -> Tensor:
        # Casts are Wan's, one by one: without audio the result must equal diffusers' block bit for bit.
        temb = temb if temb.ndim == 4 else temb.unsqueeze(1)  # per token, or one for all tokens of a sample
        shift1, scale1, gate1, shift3, scale3, gate3 = (self.scale_shift_table + temb.float()).unbind(2)

        normed = (self.norm1(hidden_states.float()) * (1 + scale1) + shift1).type_as(hidden_states)
        attended = self.attn1(normed, None, None, rotary_emb)
        hidden_states = (hidden_states.float() + attended * gate1).type_as(hidden_states)

        normed = self.norm2(hidden_states.float()).type_as(hidden_states)
        hidden_states = hidden_states + self.attn2(normed, encoder_hidden_states, None, None)

        if audio is not None:
            hidden_states = hidden_states + self.audio_residual(hidden_states, normed, audio)

        normed = (self.norm3(hidden_states.float()) * (1 + scale3) + shift3).type_as(hidden_states)
        return (hidden_states.float() + self.ffn(normed).float() * gate3).type_as(hidden_states)

    def audio_residual(self, hidden_states: Tensor, normed: Tensor, audio: AudioContext) -> Tensor:
        """What audio adds to the video tokens after text attention; ``normed`` is what text attention read."""
        return self.audio_attn(self.audio_norm(hidden_states), audio)
