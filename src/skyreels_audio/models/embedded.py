"""Between the parts of the transformer's forward: latents as tokens, and what the blocks and the head read.

Legend: B batch, C latent channel, T H W latent grid, L video token, M model width.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from skyreels_audio.models.audio_attention import AudioContext
from skyreels_audio.models.rope import Rotary


@dataclass(frozen=True)
class Embedded:
    """What `embed` hands to `run_blocks` and `head`."""

    hidden_BLM: Tensor
    context_BSM: Tensor
    modulation: Tensor
    """Six modulation vectors per sample [B, 6, M] (per token [B, L, 6, M] when the timestep is)."""
    temb: Tensor
    rotary: Rotary
    audio: AudioContext | None
    grid: tuple[int, int, int]
    """Patches along T, H, W."""
    noisy_BCTHW: Tensor
    timestep: Tensor
    base_BCTHW: Tensor | None
    """The repeated reference the network adds to; None unless `reference_residual`."""
    unknown_B1THW: Tensor | None
    """What share of a latent the network may change: 1 - known; None unless `reference_residual`."""


class PatchTokens(nn.Module):
    """Patches [B, M, T, H, W] → video tokens [B, L, M]; a module, so that context parallelism can split its output."""

    def forward(self, patches_BMTHW: Tensor) -> Tensor:
        return patches_BMTHW.flatten(2).transpose(1, 2).contiguous()


def repeated_reference(mask_B4THW: Tensor, cond_BCTHW: Tensor) -> Tensor:
    """Condition latents where known; elsewhere the first latent, if it is a reference: the guess that nothing moves."""
    known = mask_B4THW.mean(dim=1, keepdim=True)
    return cond_BCTHW * known + cond_BCTHW[:, :, :1] * known[:, :, :1] * (1 - known)


def sigmas(timestep_B: Tensor) -> Tensor:
    """Noise levels of timesteps 1000 sigma, shaped to multiply latents [B, C, T, H, W]."""
    return timestep_B.float().view(-1, 1, 1, 1, 1) / 1000
