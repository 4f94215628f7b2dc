"""Audio attention in frame windows, as the public audio models have it: FantasyTalking and the MultiTalk family.

There each latent frame of the video attends to audio tokens of its own, a window around its time, and not to a whole
track on one clock. Here that is a projector and a mask: tokens of all frames lie side by side, and a video token may
attend to those of its frame, which holds for any split of the video tokens over devices.

Legend: B batch, T latent frame, L video token, A audio token (or video frame), D audio feature, E projected audio
width, N heads, M model width.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from diffusers.models.attention import AttentionModuleMixin
from torch import Tensor, nn

from skyreels_audio.models.audio_attention import (
    AudioAttnProcessor,
    AudioContext,
    AudioProjector,
    SkyReelsAudioBlock,
)
from skyreels_audio.models.rope import FRAMES_PER_LATENT, FRAMES_PER_SECOND, TOKENS_PER_SECOND

FrameWindow = Literal["fantasytalking", "multitalk"]

REACH = 24.0
"""Token units (20 ms) that a window of latents needs of the audio before and after it; either model needs less."""

FIRST_FRAMES, LATER_FRAMES = 5, 8
"""MultiTalk: latent 0 attends to frames -2 … 2, latent i (frames 4i-3 … 4i) to the frames 4i-5 … 4i+2."""

NEIGHBOUR_TOKENS = 4
"""FantasyTalking: tokens added to either side of a latent's own."""


class MultiTalkProjector(nn.Module):
    """wav2vec features of all layers, one per video frame [B, A, D] → 32 tokens per latent frame [B, T · 32, E]."""

    tokens = 32

    def __init__(self, audio_dim: int, audio_width: int, hidden: int = 512):
        super().__init__()
        self.proj1 = nn.Linear(FIRST_FRAMES * audio_dim, hidden)
        self.proj1_vf = nn.Linear(LATER_FRAMES * audio_dim, hidden)
        self.proj2 = nn.Linear(hidden, hidden)
        self.proj3 = nn.Linear(hidden, self.tokens * audio_width)
        self.norm = nn.LayerNorm(audio_width)

    def forward(self, features_BAD: Tensor, first_B: Tensor, later_BT: Tensor) -> Tensor:
        """``first_B`` and ``later_BT``: index of the first frame of each window; what lies outside repeats the ends."""
        first = gather_frames(features_BAD, first_B[:, None], FIRST_FRAMES)
        later = gather_frames(features_BAD, later_BT, LATER_FRAMES)
        dtype = self.proj1.weight.dtype
        hidden = torch.cat([self.proj1(first.to(dtype)), self.proj1_vf(later.to(dtype))], dim=1).relu()
        tokens_BTE = self.proj3(self.proj2(hidden).relu())
        return self.norm(tokens_BTE.unflatten(2, (self.tokens, -1))).flatten(1, 2)


class FantasyTalkingProjector(nn.Module):
    """wav2vec features of the last layer [B, A, D] → tokens [B, A, E], one by one."""

    def __init__(self, audio_dim: int, audio_width: int):
        super().__init__()
        self.proj = nn.Linear(audio_dim, audio_width, bias=False)
        self.norm = nn.LayerNorm(audio_width)

    def forward(self, features_BAD: Tensor) -> Tensor:
        return self.norm(self.proj(features_BAD.to(self.proj.weight.dtype)))


class SharedQueryAttention(nn.Module, AttentionModuleMixin):
    """FantasyTalking: audio keys and values of their own; query and output projection are the text attention's."""

    _default_processor_cls = AudioAttnProcessor
    _available_processors = [AudioAttnProcessor]
    _supports_qkv_fusion = False
    processor: AudioAttnProcessor

    def __init__(self, dim: int, heads: int, audio_width: int):
        super().__init__()
        self.heads = heads
        self.to_k = nn.Linear(audio_width, dim, bias=False)
        self.to_v = nn.Linear(audio_width, dim, bias=False)
        nn.init.zeros_(self.to_k.weight)
        nn.init.zeros_(self.to_v.weight)
        self.processor = AudioAttnProcessor()

    def forward(self, hidden_states: Tensor, audio: AudioContext, text_attention: Any) -> Tensor:
        query_BLND = text_attention.norm_q(text_attention.to_q(hidden_states)).unflatten(2, (self.heads, -1))
        key_BAND = self.to_k(audio.tokens_BAE).unflatten(2, (self.heads, -1))
        value_BAND = self.to_v(audio.tokens_BAE).unflatten(2, (self.heads, -1))
        attended_BLM = self.processor(query_BLND, key_BAND, value_BAND, audio.mask_BNLA).flatten(2)
        # The bias of the output is added with the text already. Calling the module, rather than reading its weight,
        # keeps LoRA, offloading and casting at work.
        output, attended_BLM = text_attention.to_out[0], attended_BLM.type_as(hidden_states)
        return output(attended_BLM) - output(torch.zeros_like(attended_BLM[:1, :1]))


class MultiTalkBlock(SkyReelsAudioBlock):
    """Audio attention where ours is, without norms of query and key."""

    def __init__(self, dim: int, heads: int, audio_width: int | None, eps: float, **wan: Any):
        super().__init__(dim, heads, audio_width, eps, **wan)
        for norm in ("norm_q", "norm_k"):
            setattr(self.audio_attn, norm, nn.Identity())


class FantasyTalkingBlock(SkyReelsAudioBlock):
    """Audio attention within text attention."""

    def __init__(self, dim: int, heads: int, audio_width: int | None, eps: float, **wan: Any):
        super().__init__(dim, heads, None, eps, **wan)
        assert audio_width is not None
        self.audio_attn = SharedQueryAttention(dim, heads, audio_width)

    def audio_residual(self, hidden_states: Tensor, normed: Tensor, audio: AudioContext) -> Tensor:
        return self.audio_attn(normed, audio, self.attn2)


def windowed_audio_context(
    projector: nn.Module,
    features_BAD: Tensor,
    audio_positions_BA: Tensor,
    video_positions_BT: Tensor,
    spread: Callable[[Tensor], Tensor],
) -> AudioContext:
    """Tokens and the mask by which each latent frame attends to those of its window.

    The first latent of a window of latents counts as one frame, whatever it is in the timeline: as for the models, each
    window is a clip that begins with a single frame.

    Args:
        projector: the model's.
        features_BAD: audio features; all-zero ones are no audio.
        audio_positions_BA, video_positions_BT: on the clock of `rope.py`, audio evenly spaced.
        spread: repeats values of latent frames [B, T] for their video tokens [B, L].
    """
    if isinstance(projector, MultiTalkProjector):
        spacing = _spacing(audio_positions_BA)
        index_BT = (video_positions_BT - audio_positions_BA[:, :1]) / spacing
        first_B = (index_BT[:, 1] - 2.5 if index_BT.shape[1] > 1 else index_BT[:, 0]) - FIRST_FRAMES // 2
        later_BT = index_BT[:, 1:] - (LATER_FRAMES - 1) / 2
        tokens_BAE = projector(features_BAD, first_B.round().long(), later_BT.round().long())
        latents_1T = torch.arange(video_positions_BT.shape[1], device=features_BAD.device)[None]
        owners_1A = latents_1T.repeat_interleave(projector.tokens, dim=1)
        mask_BLA = spread(latents_1T)[:, :, None] == owners_1A[:, None]
        return AudioContext(tokens_BAE, None, None, mask_BLA[:, None])
    start_BT, stop_BT = fantasytalking_windows(audio_positions_BA, video_positions_BT)
    index_1A = torch.arange(features_BAD.shape[1], device=features_BAD.device)[None, None]
    mask_BLA = (index_1A >= spread(start_BT)[:, :, None]) & (index_1A <= spread(stop_BT)[:, :, None])
    mask_BLA = mask_BLA & features_BAD.any(dim=2)[:, None]
    return AudioContext(projector(features_BAD), None, None, mask_BLA[:, None])


def fantasytalking_windows(audio_positions_BA: Tensor, video_positions_BT: Tensor) -> tuple[Tensor, Tensor]:
    """First and last token of each latent frame [B, T]; they may lie outside the audio.

    A latent's own tokens are those within two frames of the middle of its four, in whole tokens; the first frame's are
    as many, before the second's.
    """
    several = video_positions_BT.shape[1] > 2
    nominal = TOKENS_PER_SECOND / FRAMES_PER_SECOND
    frame = (video_positions_BT[:, -1:] - video_positions_BT[:, -2:-1]) / FRAMES_PER_LATENT if several else nominal
    spacing = _spacing(audio_positions_BA)
    tokens_per_frame = torch.as_tensor(frame / spacing)
    half = torch.floor(2 * tokens_per_frame + 1e-6)
    # Half a frame after its mean, latent i ends two and begins two frames away: at frame 4i - 1.
    middle_BT = torch.floor(tokens_per_frame * (video_positions_BT / frame + 0.5) + 1e-6) - 1
    middle_BT = middle_BT - (audio_positions_BA[:, :1] / spacing).round()
    start_BT, stop_BT = middle_BT - half, middle_BT + half
    if video_positions_BT.shape[1] > 1:
        stop_BT = torch.cat([start_BT[:, 1:2], stop_BT[:, 1:]], dim=1)
        start_BT = torch.cat([start_BT[:, 1:2] - 2 * half, start_BT[:, 1:]], dim=1)
    return start_BT - NEIGHBOUR_TOKENS, stop_BT + NEIGHBOUR_TOKENS


def gather_frames(features_BAD: Tensor, start_BT: Tensor, count: int) -> Tensor:
    """``count`` successive features from each start, side by side: [B, T, count · D]."""
    index_BTK = start_BT[..., None] + torch.arange(count, device=start_BT.device)
    index_BTK = index_BTK.clamp(0, features_BAD.shape[1] - 1).expand(features_BAD.shape[0], -1, -1)
    batch_B11 = torch.arange(features_BAD.shape[0], device=features_BAD.device)[:, None, None]
    return features_BAD[batch_B11, index_BTK].flatten(2)


def _spacing(positions_BA: Tensor) -> Tensor | float:
    if positions_BA.shape[1] < 2:
        return TOKENS_PER_SECOND / FRAMES_PER_SECOND
    return (positions_BA[:, -1:] - positions_BA[:, :1]) / (positions_BA.shape[1] - 1)


BLOCKS: dict[FrameWindow | None, type[SkyReelsAudioBlock]] = {
    None: SkyReelsAudioBlock,
    "fantasytalking": FantasyTalkingBlock,
    "multitalk": MultiTalkBlock,
}
PROJECTORS: dict[FrameWindow | None, type[nn.Module]] = {
    None: AudioProjector,
    "fantasytalking": FantasyTalkingProjector,
    "multitalk": MultiTalkProjector,
}
