"""What the decoder says of a face's box: where its pixels come from, what is painted, and where teeth stand.

Shape letters: B frame of a batch, N channel of a code, M part of a motion, H W pixels of the face's box.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.generation.codes import BLINK, KEEP_EYES, KEEP_MOUTH
from skyreels_audio.models.inner_mouth import face_light, fit_rigid, opening, smoothstep, unknown_teeth
from skyreels_audio.models.motion_autoencoder import CHANNELS, FACE_CHANNELS

# What a frame's motion is: flow, the painted share, how far the decoder has its say, and then a `Paint`.
PARTS = (
    *("right", "down", "share", "strength", "red", "green", "blue"),
    *("inside", "across", "below", "gap", "bared", "open", "unknown"),
)
SHARE, STRENGTH, INSIDE, TEETH = (PARTS.index(name) for name in ("share", "strength", "inside", "bared"))
OPEN, UNKNOWN = (PARTS.index(name) for name in ("open", "unknown"))
FIXED = [PARTS.index(name) for name in ("across", "below", "bared", "unknown")]  # the same in all frames of a picture
OPENINGS = 0.1, 0.3, 0.5, 0.7  # of the jaw, at which a picture is asked where its skull stands
WIDE_OPEN = 2  # of them, from which on a mouth is wide open
FRONT, SHOWN = 0.25, 0.4  # places across up to which front teeth go; and below, from which on a lip hides too much
LOWER, LOWEST = 0.6, 0.17  # by so much of that teeth are lower, and at most so far
FADE = 10  # pixels of the box over which an edit ends at its border
BELOW = 1.4  # place below which a mouth that is open wider than the jaw shows the tongue; edges of upper teeth are at 1
AWAKE = 0.12  # how far keeping must end until the decoder has its full say: at rest the picture is itself
ASLEEP = 0.01  # say below which nothing is decoded


class FaceDecoder:
    """The decoder with the features of one source, band by band of the face's box."""

    def __init__(self, vae: Any, crop_HW3: np.ndarray, eyes: bool = True) -> None:
        self.vae = vae
        height, width = vae.config.size
        left, top, right, bottom = vae.config.box
        self.box = slice(round(top * height), round(bottom * height)), slice(round(left * width), round(right * width))
        source = self._source(crop_HW3)
        self.shape = (source.shape[2], source.shape[3])
        bands = {"mouth": vae.config.mouth, "eyes": vae.config.eyes} if eyes else {"mouth": vae.config.mouth}
        self.bands = {name: slice(*rows) for name, rows in bands.items()}
        self.features = {band: self.read(crop_HW3, band) for band in self.bands}
        first, last = vae.config.mouth[0], vae.config.eyes[1]
        row = torch.arange(self.shape[0], device=vae.device).view(-1, 1)
        self.source, self.light_B7 = source, face_light(source)
        self.lower = ((row - first) / (last - first)).clamp(0, 1)
        self.border = border_fade(self.shape, vae.device)
        self.toothless = False  # whether teeth were taken out of the pixels that are to be moved

    def _source(self, crop_HW3: np.ndarray) -> Tensor:
        """The face's box of a crop [1, 3, H, W], -1 to 1."""
        box = torch.from_numpy(np.ascontiguousarray(crop_HW3[self.box]))
        return box.permute(2, 0, 1)[None].to(self.vae.device).float() / 127.5 - 1

    @torch.no_grad()
    def read(self, crop_HW3: np.ndarray, band: str = "mouth") -> list[Tensor]:
        """Features of the mouth, or another band, in a crop of this face, whose lips may be others."""
        rows = self.bands[band]
        return self.vae.read_source(self._source(crop_HW3)[:, :, rows].to(self.vae.dtype), rows)

    @torch.no_grad()
    def __call__(self, codes_BN: Tensor, mouth: list[Tensor] | None = None) -> Tensor:
        """Flow (crop pixels right, down), painted share, strength, and what a ``Paint`` has [B, 14, H, W].

        ``mouth``: features of another crop's mouth, see ``read``.
        """
        codes_BN = codes_BN.to(self.vae.device)
        face = codes_BN[:, : len(FACE_CHANNELS)].to(self.vae.dtype, copy=True)
        face[:, BLINK] = 0  # lids are the picture's own skin
        result = torch.zeros(len(codes_BN), len(PARTS), *self.shape, device=self.vae.device)
        for band, keep in (("mouth", KEEP_MOUTH), ("eyes", KEEP_EYES)):
            awake_B = ((1 - codes_BN[:, keep]) / AWAKE).clamp(0, 1).float()
            chosen = torch.nonzero(awake_B > ASLEEP).flatten()
            if band not in self.bands or not len(chosen):
                continue
            rows = self.bands[band]
            features = mouth if mouth is not None and band == "mouth" else self.features[band]
            motion = self.vae.move(face[chosen], features)
            weight = self.lower if band == "mouth" else 1 - self.lower
            strength = awake_B[chosen].view(-1, 1, 1, 1) * weight[rows]
            result[chosen, :SHARE, rows] += motion.flow_B2HW * strength
            result[chosen, STRENGTH, rows] += strength[:, 0]
            inside = motion.inside_B1HW
            bared = motion.bared_B1HW
            place_B2HW, gap_B1HW = fit_rigid(motion.place_B2HW, motion.gap_B1HW, inside)
            lowest_B111 = torch.where(inside > 0.5, place_B2HW[:, 1:], 0).amax((1, 2, 3), keepdim=True)
            gap_B1HW = torch.maximum(gap_B1HW, lowest_B111 - BELOW)  # where lips are open wider, the tongue is seen
            teeth = place_B2HW, gap_B1HW, bared, opening(inside), unknown_teeth(bared)
            painted = torch.cat([motion.colour_B3HW, inside, *teeth], 1)
            unmoved = torch.maximum(motion.painted_B1HW, inside) if self.toothless else motion.unmoved()
            result[chosen, SHARE, rows] += (unmoved * weight[rows])[:, 0]
            result[chosen, STRENGTH + 1 :, rows] += painted * weight[rows]
        result[:, :SHARE] *= self.border
        result[:, STRENGTH] *= self.border
        return result

    @cached_property
    def fixed(self) -> Tensor:
        """What is the same in all frames of one picture [4, H, W]: the mean over some mouths."""
        codes = torch.zeros(len(OPENINGS), len(CHANNELS))
        codes[:, CHANNELS.index("jawOpen")] = torch.tensor(OPENINGS)
        motion = self(codes)
        fixed = motion[:, FIXED].mean(0)
        fixed[FIXED.index(PARTS.index("below"))] -= hidden_teeth(motion[WIDE_OPEN:])
        return fixed


def hidden_teeth(motion_BMHW: Tensor) -> float:
    """By how much upper teeth, of which open mouths would show next to nothing, stand lower than the decoder says.

    Where a picture bares them they are where they are.
    """
    across, below = (motion_BMHW[:, PARTS.index(name)] for name in ("across", "below"))
    open_BHW = (motion_BMHW[:, INSIDE] > 0.5) & (across.abs() < FRONT)
    lip_BW = torch.where(open_BHW, below, torch.inf).amin(1)
    lip_n = lip_BW[lip_BW.isfinite()]
    if not len(lip_n) or motion_BMHW[:, TEETH].amax() > 0.5:
        return 0.0
    return min(LOWER * max(float(lip_n.median()) - SHOWN, 0.0), LOWEST)


def border_fade(shape: tuple[int, int], device: Any) -> Tensor:
    """1 inside of a box, 0 at its border [H, W]."""
    across = [torch.minimum(torch.arange(n) + 0.5, n - torch.arange(n) - 0.5) for n in shape]
    away = torch.minimum(across[0][:, None], across[1][None, :]).to(device)
    return smoothstep(0, FADE, away)
