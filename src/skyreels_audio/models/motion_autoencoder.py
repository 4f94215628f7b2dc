"""The small autoencoder: latents say how a face moves, the decoder moves the pixels of a picture that is at hand.

A latent is the code of four frames of a face: what its mouth, eyes and brows do, how much of the picture's own
expression they keep, and how the head is turned. The decoder reads a code and the picture (the portrait, or the very
frame that is being edited) and says for every pixel where in the picture it comes from, how far it is painted instead,
and with what. Where the source shows a thing it is moved, not drawn again, so it stays as sharp as it was. The inside
of a mouth that it does not show is drawn (``inner_mouth``), and the decoder says where. Upper teeth that it does show
belong to the skull: while lips move over them they stay where they are, and no flow carries them.

The interface is that of diffusers' video autoencoders as far as both have one: ``encode(x).latent_dist``,
``config.latents_mean`` and ``latents_std``; latent 0 is frame 0 alone and latent ``i`` holds frames ``4i-3 … 4i``.

Shapes: B batch, N channel of a code, F pixel frame, T latent frame, C latent channel, H W pixels of the face's box.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from skyreels_audio.models.inner_mouth import (
    draw_inside,
    light_on_teeth,
    opening,
    own_teeth,
    unknown_teeth,
)
from skyreels_audio.models.rope import FRAMES_PER_LATENT as FRAMES

# fmt: off
MOUTH_CHANNELS = (
    "jawOpen", "mouthFunnel", "mouthPucker", "mouthPress", "mouthRollLower", "mouthRollUpper", "mouthStretch",
    "mouthSmile", "mouthUpperUp", "mouthLowerDown", "tongueOut", "mouthFrown", "mouthDimple", "mouthShrugLower",
)
EYE_CHANNELS = (
    "cheekSquint", "noseSneer", "browInnerUp", "browOuterUp", "browDown", "eyeBlink", "eyeSquint", "eyeWide",
)
# fmt: on
FACE_CHANNELS = (*MOUTH_CHANNELS, *EYE_CHANNELS, "keepMouth", "keepEyes")
"""ARKit's actions, 0 to 1, both sides alike; and how much of the source's own mouth, and eyes, is kept instead."""
HEAD_CHANNELS = ("yaw", "pitch", "roll", "shiftX", "shiftY")
"""Radians, to the person's left, down, and clockwise as they see it; shifts right and down in heights of the frame."""
CHANNELS = (*FACE_CHANNELS, *HEAD_CHANNELS)
REST = tuple(float(name.startswith("keep")) for name in CHANNELS)
"""The code of a face that stays as its picture shows it."""

CALM = 0.1  # of the last layers' output: a step of the optimiser moves many weights at once
FLOW_SCALE = 16.0  # pixels of flow per unit of output
PLACE_SCALE = 4.0  # half sizes of the upper teeth per unit of output
OUTPUTS = 11  # flow, painted share, colour, inside of the mouth, place in the skull, gap, teeth in the source
SHRINK = 16  # the face's box must be a multiple of it


@dataclass(frozen=True)
class Motion:
    """What a decoder makes of a face's box: all [B, …, H, W].

    ``flow_B2HW``: where a pixel comes from, in pixels right and down of where it is. ``painted_B1HW``: 0 where the
    source's pixel is taken, 1 where something else is: ``colour_B3HW`` (-1 to 1), or, as far as ``inside_B1HW`` says,
    the inside of a mouth, with teeth by ``place_B2HW`` and ``gap_B1HW`` (``inner_mouth``). ``bared_B1HW``: where the
    source shows upper teeth; inside of the mouth these are seen as the source's own pixels in their place.
    """

    flow_B2HW: Tensor
    painted_B1HW: Tensor
    colour_B3HW: Tensor
    inside_B1HW: Tensor
    place_B2HW: Tensor
    gap_B1HW: Tensor
    bared_B1HW: Tensor

    def unmoved(self) -> Tensor:
        """Share [B, 1, H, W] that is painted: what is hidden, and wherever the flow would carry teeth along."""
        return 1 - (1 - self.painted_B1HW) * (1 - warp(F.max_pool2d(self.bared_B1HW, 3, 1, 1), self.flow_B2HW))

    def apply(self, source_B3HW: Tensor, light_B7: Tensor, teeth_4RS: Tensor) -> Tensor:
        """The moved and painted source [B, 3, H, W], of the size that the motion has."""
        mouth = self.inside_B1HW, self.place_B2HW, self.gap_B1HW, self.bared_B1HW, opening(self.inside_B1HW)
        paint = Paint(self.colour_B3HW, *mouth, unknown_teeth(self.bared_B1HW.detach()))
        light_B7 = light_on_teeth(light_B7, source_B3HW, self.bared_B1HW.detach())
        moved = warp(source_B3HW, self.flow_B2HW)
        return paint.over(moved, self.unmoved(), source_B3HW, light_B7, teeth_4RS)


@dataclass(frozen=True)
class Paint:
    """What a ``Motion`` paints of any pixels [B, …, H, W].

    ``open_B1HW`` and ``unknown_B1HW`` are from ``opening`` and ``unknown_teeth`` of ``inner_mouth``.
    """

    colour_B3HW: Tensor
    inside_B1HW: Tensor
    place_B2HW: Tensor
    gap_B1HW: Tensor
    bared_B1HW: Tensor
    open_B1HW: Tensor
    unknown_B1HW: Tensor

    def over(
        self, moved_B3HW: Tensor, unmoved_B1HW: Tensor, still_B3HW: Tensor, light_B7: Tensor, teeth_4RS: Tensor
    ) -> Tensor:
        """Painted [B, 3, H, W] over what is moved, with its own teeth, from the source that stands still, before it."""
        place, gap, unknown = self.place_B2HW, self.gap_B1HW, self.unknown_B1HW
        drawn = draw_inside(place, gap, self.open_B1HW, light_B7, teeth_4RS, unknown)
        painted = self.colour_B3HW + self.inside_B1HW * (drawn - self.colour_B3HW)
        own = self.inside_B1HW * self.bared_B1HW * own_teeth(self.place_B2HW)
        result = moved_B3HW + unmoved_B1HW * (painted - moved_B3HW)
        return result + own * (still_B3HW - result)


def warp(source_BCHW: Tensor, flow_B2HW: Tensor) -> Tensor:
    """Each pixel from the place that the flow (pixels right, down) points to; past the border its colour goes on."""
    height, width = source_BCHW.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow_B2HW.device), torch.arange(width, device=flow_B2HW.device), indexing="ij"
    )
    place_BHW2 = (flow_B2HW.float() + torch.stack([x, y]) + 0.5).permute(0, 2, 3, 1)
    grid_BHW2 = 2 * place_BHW2 / torch.tensor([width, height], device=flow_B2HW.device) - 1
    return F.grid_sample(source_BCHW.float(), grid_BHW2, align_corners=False, padding_mode="border")


def pack(codes_BFN: Tensor) -> Tensor:
    """Codes of F frames → latents [B, 4 N, T, 1, 1]: frame 0 alone, four times, then four frames each."""
    count, frames, channels = codes_BFN.shape
    if (frames - 1) % FRAMES:
        raise ValueError(f"{frames} frames do not fill latents of {FRAMES} after the first.")
    codes_BFN = torch.cat([codes_BFN[:, :1].expand(-1, FRAMES - 1, -1), codes_BFN], 1)
    return codes_BFN.reshape(count, -1, FRAMES * channels).transpose(1, 2)[..., None, None]


def unpack(latents_BCT11: Tensor) -> Tensor:
    """Codes [B, 4 (T - 1) + 1, N] of latents."""
    codes_BTC = latents_BCT11[..., 0, 0].transpose(1, 2)
    return codes_BTC.reshape(len(codes_BTC), -1, latents_BCT11.shape[1] // FRAMES)[:, FRAMES - 1 :]


class ChannelNorm(nn.Module):
    """RMSNorm over the channels of each pixel: nothing global, so a part of a face is decoded like the whole."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.weight * torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-6)).to(x.dtype)


class Block(nn.Module):
    """Two convolutions beside an identity, modulated by the code where there is one."""

    def __init__(self, width: int, code_width: int = 0) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(code_width, 2 * width) if code_width else None
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, code_BD: Tensor | None = None) -> Tensor:
        h = self.norm(x)
        if self.modulation is not None:
            scale, shift = self.modulation(code_BD)[:, :, None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return x + self.conv2(F.silu(self.conv1(F.silu(h))))


class MotionDecoder(nn.Module):
    """A U-Net over the source at four scales (1/2 … 1/16) that the code modulates on the way back up."""

    def __init__(self, codes: int, widths: Sequence[int], code_width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(codes, code_width), nn.SiLU(), nn.Linear(code_width, code_width), nn.SiLU()
        )
        inputs = (4 * 5, *widths[:-1])  # colours and place, four pixels in one
        self.down = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=1 if level == 0 else 2, padding=1)
            for level, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.read = nn.ModuleList(Block(width) for width in widths)
        self.middle = nn.ModuleList(Block(widths[-1], code_width) for _ in range(2))
        above, below = widths[-2::-1], widths[:0:-1]
        self.join = nn.ModuleList(nn.Conv2d(a + b, a, 3, padding=1) for a, b in zip(above, below, strict=True))
        self.move = nn.ModuleList(Block(width, code_width) for width in above)
        self.coarse = nn.ModuleList(nn.Conv2d(width, OUTPUTS, 3, padding=1) for width in (widths[-1], *above[:-1]))
        self.fine = nn.Conv2d(widths[0], 4 * OUTPUTS, 3, padding=1)

    def read_source(self, source_B3HW: Tensor, place_B2HW: Tensor) -> list[Tensor]:
        """Features of the source at every scale, finest first: computed once for a portrait."""
        h = F.pixel_unshuffle(torch.cat([source_B3HW, place_B2HW.to(source_B3HW.dtype)], 1), 2)
        features = []
        for down, block in zip(self.down, self.read, strict=True):
            h = block(down(h))
            features.append(h)
        return features

    def forward(self, codes_BN: Tensor, features: list[Tensor]) -> Motion:
        code_BD = self.embed(codes_BN)
        h = features[-1].expand(len(codes_BN), -1, -1, -1)
        for block in self.middle:
            h = block(h, code_BD)
        result = self.coarse[0](h).float()
        for level, (join, block) in enumerate(zip(self.join, self.move, strict=True)):
            skip = features[-2 - level].expand(len(codes_BN), -1, -1, -1)
            h = block(join(torch.cat([F.interpolate(h, scale_factor=2.0), skip], 1)), code_BD)
            result = F.interpolate(result, scale_factor=2.0, mode="bilinear")
            result = result + self.coarse[level + 1](h).float() if level + 1 < len(self.coarse) else result
        result = F.interpolate(result, scale_factor=2.0, mode="bilinear")
        result = CALM * (result + F.pixel_shuffle(self.fine(h), 2).float())
        return Motion(
            FLOW_SCALE * result[:, :2],
            torch.sigmoid(4 * result[:, 2:3] - 2),
            result[:, 3:6],
            torch.sigmoid(4 * result[:, 6:7] - 4),
            PLACE_SCALE * result[:, 7:9],
            PLACE_SCALE * result[:, 9:10],
            torch.sigmoid(4 * result[:, 10:] - 4),
        )


class Deterministic:
    """What ``encode`` returns in place of a Gaussian: the motion of a picture at rest is certain."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def mode(self) -> Tensor:
        return self.mean


class MotionAutoencoder(ModelMixin, ConfigMixin):
    """Latents of motion, and the decoder that moves a picture by them.

    Args:
        z_dim: latent channels, four codes.
        widths: of the decoder's scales.
        code_width: of what the code is embedded in.
        size: of the aligned frame (H, W) that ``box`` is a part of.
        box: the face's part of the aligned frame: left, top, right, bottom in fractions.
        scale_factor_spatial: pixels of the aligned frame per latent: the code is of the whole face, so all of them.
        mouth, eyes: parts of the box that are decoded where only they change: top and bottom, in its pixels.
        teeth: height and width of the picture of upper teeth.
        latents_mean, latents_std: of each latent channel, by which the transformer's latents are normalised.
    """

    config: Any  # the arguments of __init__

    @register_to_config
    def __init__(
        self,
        z_dim: int = FRAMES * len(CHANNELS),
        widths: Sequence[int] = (32, 64, 96, 160),
        code_width: int = 128,
        size: Sequence[int] = (256, 256),
        box: Sequence[float] = (0.25, 0.34375, 0.75, 0.96875),
        mouth: Sequence[int] = (48, 160),
        eyes: Sequence[int] = (0, 64),
        teeth: Sequence[int] = (64, 256),
        scale_factor_spatial: int = 256,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if z_dim != FRAMES * len(CHANNELS):
            raise ValueError(f"z_dim must be {FRAMES * len(CHANNELS)}, four codes of {len(CHANNELS)}, not {z_dim}.")
        left, top, right, bottom = box
        height, width = round((bottom - top) * size[0]), round((right - left) * size[1])
        if height % SHRINK or width % SHRINK:
            raise ValueError(f"The face's box of {width}×{height} pixels must be a multiple of {SHRINK}.")
        self.decoder = MotionDecoder(len(FACE_CHANNELS), widths, code_width)
        self.register_buffer("teeth_4RS", torch.ones(4, *teeth))
        # Not linspace: while transformers makes a model on meta, it has another, and torch may remember that one.
        y, x = torch.meshgrid(*(2 * torch.arange(side) / (side - 1) - 1 for side in (height, width)), indexing="ij")
        self.register_buffer("place_2HW", torch.stack([x, y]), persistent=False)

    def encode(self, pixels_BCFHW: Tensor) -> AutoencoderKLOutput:
        """Latents of frames that are their own source, [B, C, T, H / size, W / size]: each stays as it is."""
        count, _, frames, height, width = pixels_BCFHW.shape
        rest_BFN = pixels_BCFHW.new_tensor(REST).expand(count, frames, -1)
        cells = height // self.config.scale_factor_spatial, width // self.config.scale_factor_spatial
        latents = pack(rest_BFN).expand(-1, -1, -1, *cells)
        return AutoencoderKLOutput(latent_dist=Deterministic(latents))  # type: ignore[arg-type]

    def read_source(self, source_B3HW: Tensor, rows: slice = slice(None)) -> list[Tensor]:
        """Features of the face's box [B, 3, H, W] (-1 to 1), or of some of its rows, for ``move``."""
        place = self.place_2HW[None, :, rows].expand(len(source_B3HW), -1, -1, -1)
        return self.decoder.read_source(source_B3HW, place)

    def move(self, codes_BN: Tensor, features: list[Tensor]) -> Motion:
        """What face codes [B, N] make of the source whose features were read; one source serves all codes."""
        return self.decoder(codes_BN, features)
