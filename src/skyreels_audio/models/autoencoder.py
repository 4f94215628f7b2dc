"""The small causal video autoencoder of the default checkpoint: linear analysis, learned synthesis.

Full-size checkpoints use diffusers' ``AutoencoderKLWan``; both stand behind the same interface
(``encode(x).latent_dist``, ``decode(z).sample``, ``config.latents_mean`` and ``latents_std``), and here as there
latent 0 is frame 0 alone and latent ``i`` holds frames ``4i-3 … 4i``.

Shapes: B batch, C channel, F pixel frame, T latent frame, H W grid.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

FRAMES, PIXELS = 4, 16  # one latent covers 4 frames × 16 × 16 pixels
FINE = 4  # the second synthesis stage works on cells of 4 × 4 pixels


class DeterministicDistribution:
    """What ``encode`` returns in place of a Gaussian: a linear analysis has no variance, so mode and sample agree."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mean


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions beside an identity; the second starts at zero, so an untrained stage changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class CausalVideoAutoencoder(ModelMixin, ConfigMixin):
    """Karhunen-Loève transform of 4 × 16 × 16 pixel blocks, undone by a transposed transform plus a learned correction.

    The transform is the best *linear* code of its size and costs one strided convolution. Its weakness is that blocks
    know nothing of each other; the decoder sees each block's neighbours in space and its predecessor in time, and adds
    what they tell: edges across block borders, and the detail that the dropped coefficients held.

    Args:
        z_dim: kept coefficients, i.e. latent channels.
        coarse_width, coarse_blocks: convolutions on the latent grid (cells of 16 × 16 pixels).
        fine_width, fine_blocks: convolutions on cells of 4 × 4 pixels.
        latents_mean, latents_std: per-channel statistics that bring latents to unit scale: ``(z - mean) / std``.
    """

    config_name = "config.json"
    scale_factor_temporal = FRAMES
    scale_factor_spatial = PIXELS
    context = 1  # latents of the past that one decoded latent depends on

    @register_to_config
    def __init__(
        self,
        z_dim: int = 64,
        coarse_width: int = 256,
        coarse_blocks: int = 2,
        fine_width: int = 64,
        fine_blocks: int = 2,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__()
        block = 3 * FRAMES * PIXELS * PIXELS
        cell = 3 * FRAMES * FINE * FINE
        # Kept in float32 as buffers: they are measured from data (`fit_klt`), not trained.
        self.register_buffer("basis", torch.eye(block)[:z_dim].clone())  # [z_dim, block], orthonormal rows
        self.register_buffer("mean_block", torch.zeros(block))
        self.coarse_in = nn.Conv2d(2 * z_dim, coarse_width, 3, padding=1)
        self.coarse = nn.Sequential(*[ResidualBlock(coarse_width) for _ in range(coarse_blocks)])
        self.to_fine = nn.Conv2d(coarse_width, fine_width * (PIXELS // FINE) ** 2, 1)
        self.fine_in = nn.Conv2d(fine_width + cell, fine_width, 3, padding=1)
        self.fine = nn.Sequential(*[ResidualBlock(fine_width) for _ in range(fine_blocks)])
        self.fine_out = nn.Conv2d(fine_width, cell, 3, padding=1)
        for parameter in self.fine_out.parameters():
            nn.init.zeros_(parameter)

    def encode(self, x_BCFHW: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """Video in [-1, 1], 4(T-1)+1 frames, sides divisible by 16 → latents [B, z_dim, T, H/16, W/16]."""
        frames, height, width = x_BCFHW.shape[2:]
        if (frames - 1) % FRAMES or height % PIXELS or width % PIXELS:
            raise ValueError(
                f"the autoencoder takes 4n+1 frames with sides divisible by {PIXELS}, not {frames} × {height} × {width}"
            )
        x = torch.cat([x_BCFHW[:, :, :1].expand(-1, -1, FRAMES - 1, -1, -1), x_BCFHW], 2)
        kernel = self.basis.view(-1, 3, FRAMES, PIXELS, PIXELS).to(x.dtype)
        bias = -(self.basis @ self.mean_block).to(x.dtype)
        posterior = DeterministicDistribution(F.conv3d(x, kernel, bias, stride=(FRAMES, PIXELS, PIXELS)))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)  # pyright: ignore

    def decode(self, z_BCTHW: Tensor, return_dict: bool = True) -> DecoderOutput | tuple:
        """Latents [B, z_dim, T, H, W] → video in [-1, 1], [B, 3, 4(T-1)+1, 16H, 16W]."""
        x = self._synthesise(z_BCTHW)[:, :, FRAMES - 1 :].clamp(-1, 1)
        return DecoderOutput(sample=x) if return_dict else (x,)

    def decode_stream(self, z_BCTHW: Tensor, chunk: int = 8) -> Iterator[Tensor]:
        """Yield the video of ``decode`` in pieces of up to ``4·chunk`` frames, one in memory at a time."""
        for start in range(0, z_BCTHW.shape[2], chunk):
            first = max(start - self.context, 0)
            skip = FRAMES * (start - first) if start else FRAMES - 1
            yield self._synthesise(z_BCTHW[:, :, first : start + chunk])[:, :, skip:].clamp(-1, 1)

    def _synthesise(self, z_BCTHW: Tensor) -> Tensor:
        """All four frames of every latent, the three copies that precede frame 0 included."""
        batch, _, latent_frames, rows, columns = z_BCTHW.shape
        past = torch.cat([z_BCTHW[:, :, :1], z_BCTHW[:, :, :-1]], 2)
        z, past = (v.transpose(1, 2).flatten(0, 1) for v in (z_BCTHW, past))  # [(B T), C, H, W]
        # Channels last, as all that follows then is: convolutions need not reorder what they read.
        z, past = (v.contiguous(memory_format=torch.channels_last) for v in (z, past))

        # Linear synthesis, laid out as cells of 4 × 4 pixels: [(B T), 3·4·4·4, 4H, 4W].
        side = PIXELS // FINE
        kernel = self.basis.view(-1, 3, FRAMES, side, FINE, side, FINE).permute(0, 1, 2, 4, 6, 3, 5)
        linear = F.conv_transpose2d(z, kernel.reshape(z.shape[1], -1, side, side).to(z.dtype), stride=side)
        mean = self.mean_block.view(3, FRAMES, side, FINE, side, FINE).permute(0, 1, 3, 5, 2, 4)
        linear = linear + mean.reshape(1, -1, side, side).to(z.dtype).repeat(1, 1, rows, columns)

        scale = torch.tensor(self.config["latents_std"] or [1.0] * z.shape[1], device=z.device, dtype=z.dtype)
        h = self.coarse(self.coarse_in(torch.cat([z, past], 1) / scale.repeat(2).view(1, -1, 1, 1)))
        h = F.pixel_shuffle(self.to_fine(h), side)
        cells = linear + self.fine_out(F.silu(self.fine(self.fine_in(torch.cat([h, linear], 1)))))
        x = cells.view(batch, latent_frames, 3, FRAMES, FINE, FINE, rows * side, columns * side)
        return x.permute(0, 2, 1, 3, 6, 4, 7, 5).reshape(
            batch, 3, latent_frames * FRAMES, rows * PIXELS, columns * PIXELS
        )


@torch.no_grad()
def fit_klt(blocks_ND: Tensor, z_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Karhunen-Loève basis of pixel blocks [N, 3·4·16·16]: (mean [D], orthonormal rows [z_dim, D], std [z_dim])."""
    mean = blocks_ND.mean(0)
    centred = blocks_ND - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    order = variances.argsort(descending=True)[:z_dim]
    return mean, vectors[:, order].T.contiguous(), variances[order].clamp(min=0).sqrt()


def blocks_of(video_CFHW: Tensor) -> Tensor:
    """Cut [3, 4n, 16h, 16w] into rows of one 4 × 16 × 16 block each, in the order that ``basis`` uses."""
    channels, frames, height, width = video_CFHW.shape
    x = video_CFHW.view(channels, frames // FRAMES, FRAMES, height // PIXELS, PIXELS, width // PIXELS, PIXELS)
    return x.permute(1, 3, 5, 0, 2, 4, 6).reshape(-1, channels * FRAMES * PIXELS * PIXELS)
