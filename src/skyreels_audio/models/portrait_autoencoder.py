"""The autoencoder of portraits that words make: a code that says what a portrait shows, and the painter of it.

The code (``portrait_code``) is what the renderer of the drawn people was given. A mesh says where their surfaces are
in the picture (``portrait_geometry``); a convolutional network that the code modulates paints latents of TAEF2 over it,
and TAEF2's decoder draws a natural, sharp picture of them: an error in the code is another person, not a blur.

The interface is that of diffusers' video autoencoders as far as both have one; a portrait is one latent frame of one
pixel. Shapes: B batch, C channel of the code, K map, H W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from skyreels_audio.models import taef2
from skyreels_audio.models.motion_autoencoder import Block
from skyreels_audio.models.portrait_code import CODE_CHANNELS, snap
from skyreels_audio.models.portrait_geometry import MAPS, PortraitGeometry

FINER = 4  # pixels of the maps per latent, across and down


class PortraitDecoder(nn.Module):
    """Maps of what is seen → latents of TAEF2, by convolutions that the code modulates."""

    def __init__(self, width: int, blocks: int, code_width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(CODE_CHANNELS, code_width), nn.SiLU(), nn.Linear(code_width, code_width), nn.SiLU()
        )
        self.first = nn.Conv2d(MAPS * FINER**2 + 2, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, code_width) for _ in range(blocks))
        self.last = nn.Conv2d(width, taef2.LATENT_CHANNELS, 3, padding=1)

    def forward(self, normalised_BC: Tensor, maps_BKHW: Tensor) -> Tensor:
        code_BD = self.embed(normalised_BC)
        h = F.pixel_unshuffle(maps_BKHW, FINER)
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, device=h.device) for n in h.shape[2:]), indexing="ij")
        h = self.first(torch.cat([h, torch.stack([x, y]).expand(len(h), -1, -1, -1).to(h.dtype)], 1))
        for block in self.blocks:
            h = block(h, code_BD)
        return self.last(h)


class PortraitAutoencoder(ModelMixin, ConfigMixin):
    """Decoder of portraits.

    Args:
        z_dim: channels of a code.
        vertices, triangles: of the mesh.
        width, blocks: of the network.
        code_width: of what the code is embedded in.
        scale_factor_spatial: side of the portrait: the code is of the whole of it.
        latents_mean, latents_std: of each channel, by which the transformer's latents are normalised.
    """

    config: Any  # the arguments of __init__
    mean_C: Tensor
    std_C: Tensor

    @register_to_config
    def __init__(
        self,
        z_dim: int = CODE_CHANNELS,
        vertices: int = 1,
        triangles: int = 1,
        width: int = 96,
        blocks: int = 4,
        code_width: int = 128,
        scale_factor_spatial: int = 256,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if z_dim != CODE_CHANNELS:
            raise ValueError(f"z_dim must be {CODE_CHANNELS}, the channels of a portrait's code, not {z_dim}.")
        self.geometry = PortraitGeometry(vertices, triangles)
        self.decoder = PortraitDecoder(width, blocks, code_width)
        self.painter = taef2.decoder()
        self.register_buffer("mean_C", torch.tensor(latents_mean or [0.0] * z_dim), persistent=False)
        self.register_buffer("std_C", torch.tensor(latents_std or [1.0] * z_dim), persistent=False)

    def maps(self, code_BC: Tensor) -> Tensor:
        """What the mesh of snapped codes shows at each pixel of a quarter of a latent's side [B, K, H/2, W/2]."""
        return self.geometry.draw(code_BC, self.config.scale_factor_spatial * FINER // taef2.SHRINK)

    def paint(self, code_BC: Tensor, maps_BKHW: Tensor) -> Tensor:
        """TAEF2's latents [B, 32, H/8, W/8] of snapped codes and their maps."""
        dtype = self.decoder.first.weight.dtype
        return self.decoder(((code_BC - self.mean_C) / self.std_C).to(dtype), maps_BKHW.to(dtype))

    @torch.no_grad()
    def decode(self, z_BC111: Tensor) -> DecoderOutput:
        """Portraits [B, 3, 1, H, W], -1 to 1, of codes [B, C, 1, 1, 1], whose choices are made by the largest."""
        code_BC = snap(z_BC111.flatten(1).float())
        pictures = self.painter(self.paint(code_BC, self.maps(code_BC)))
        return DecoderOutput(sample=(2 * pictures - 1).clamp(-1, 1)[:, :, None])
