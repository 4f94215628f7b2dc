"""TAEF2 (Ollin Boer Bohan, MIT): a tiny autoencoder of natural images, distilled from FLUX.2's.

RGB in [0, 1] ↔ latents of 32 channels at 1/8 of the side. Modules stand where its state dict has them.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

LATENT_CHANNELS, SHRINK, WIDTH = 32, 8, 64


class Clamp(nn.Module):
    """Latents held softly within ±3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """Three convolutions beside an identity, which ``pool`` first mends by what the whole picture shows."""

    def __init__(self, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        wide = 4 * WIDTH
        self.pool = (
            nn.Sequential(
                nn.Conv2d(WIDTH, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, WIDTH, 1, bias=False),
            )
            if pool
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


def _conv(**options) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1, **options)


def encoder() -> nn.Sequential:
    """Pictures [B, 3, H, W] in [0, 1] → latents [B, 32, H/8, W/8]."""
    stages = [[_conv(stride=2, bias=False), *(Block(pool) for _ in range(3))] for pool in (False, False, True)]
    first, last = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, LATENT_CHANNELS, 3, padding=1)
    return nn.Sequential(first, Block(), *(module for stage in stages for module in stage), last)


def decoder() -> nn.Sequential:
    """Latents [B, 32, h, w] → pictures [B, 3, 8 h, 8 w], about [0, 1]."""
    first, last = nn.Conv2d(LATENT_CHANNELS, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 3, 3, padding=1)
    stages = [
        [*(Block(pool) for _ in range(3)), nn.Upsample(scale_factor=2), _conv(bias=False)]
        for pool in (True, False, False)
    ]
    return nn.Sequential(Clamp(), first, nn.ReLU(), *(module for stage in stages for module in stage), Block(), last)


def load(module: nn.Sequential, path: Path) -> nn.Sequential:
    """Give an encoder or decoder the weights of a file of the release, in float32."""
    module.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return module
