"""Video and audio positions on one clock, and the rotary embedding that reads it.

The clock ticks 50 times a second, once per Whisper token. It starts at the first frame of the video. Positions are
floats, so any frame rate and any window of a long timeline lands on the same axis (T latent frames, A audio tokens,
L video tokens, N heads, D head width).
"""

import torch
from torch import Tensor

from skyreels_audio.media import SAMPLE_RATE

TOKENS_PER_SECOND = 50
SAMPLES_PER_TOKEN = SAMPLE_RATE // TOKENS_PER_SECOND  # 320: one token is two mel frames of 10 ms

FRAMES_PER_SECOND = 25
FRAMES_PER_LATENT = 4
"""Of every causal video autoencoder here: latent 0 is one frame, each later one four."""

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines, float32, each [1 or B, L, 1, D/2]: one angle per pair of channels, the same for all heads."""


def latent_positions(latents: int, fps: float = FRAMES_PER_SECOND) -> Tensor:
    """Position of each latent frame of a causal video autoencoder: float64 [T].

    Latent 0 encodes frame 0 alone; latent i ≥ 1 encodes frames 4i-3 … 4i and sits at their mean, frame 4i - 1.5.
    """
    last_T = FRAMES_PER_LATENT * torch.arange(latents, dtype=torch.float64)
    frames_T = (last_T - (FRAMES_PER_LATENT - 1) / 2).clamp(min=0)
    return frames_T * (TOKENS_PER_SECOND / fps)


def token_positions(tokens: int) -> Tensor:
    """Position of each audio token of a track that starts with the video: float64 [A], the middle of its 20 ms."""
    return torch.arange(tokens, dtype=torch.float64) + 0.5


def clock_dtype(device: torch.device) -> torch.dtype:
    """float64 for positions and angles, or float32 where the device has nothing finer (MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def rotary_table(positions_BL: Tensor, dim: int, theta: float) -> Rotary:
    """Rotary angles position · theta^(-2i/dim) for the `dim / 2` channel pairs of a head (Su et al. 2021, eq. 15).

    Angles are taken in `clock_dtype`: an hour is 180 000 radians of the fastest pair.
    """
    exact = clock_dtype(positions_BL.device)
    exponents = torch.arange(0, dim, 2, dtype=exact, device=positions_BL.device) / dim
    angles_BLND = (positions_BL.to(exact)[..., None] * theta**-exponents).unsqueeze(2)
    return angles_BLND.cos().float(), angles_BLND.sin().float()


def rotate(heads_BLND: Tensor, rotary: Rotary) -> Tensor:
    """Rotate neighbouring channel pairs by their angles, in float32 (the pairing of Wan's own rotary embedding)."""
    cos, sin = rotary
    real, imaginary = heads_BLND.unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack((real * cos - imaginary * sin, real * sin + imaginary * cos), dim=-1)
    return rotated.flatten(-2).type_as(heads_BLND)


class TokenClock(torch.nn.Module):
    """Repeats the positions of latent frames for their video tokens: [1 or B, T] → [1 or B, L], L = T · tokens.

    A module, so that context parallelism can split its output exactly as it splits the tokens.
    """

    def forward(self, positions_BT: Tensor, tokens: int) -> Tensor:
        return positions_BT.repeat_interleave(tokens, dim=1)
