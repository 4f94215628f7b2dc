"""Eyes that shut and look elsewhere, moved in the picture at its own resolution.

An open eye hides most of its lid, so a decoder can only paint it, and its paint of skin that it never saw is grey. But
landmarks say where lashes and brow are, and the skin above the fold looks much as the lid would: it is drawn down over
the eye. They say where the iris is, too, which turns with the eyeball behind lids that stay.

Shapes: h w pixels of the part of a picture that belongs to an eye.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.generation.part import Part, as_bytes, sample
from skyreels_audio.models.inner_mouth import smoothstep

# fmt: off
EYES = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133),
     (33, 7, 163, 144, 145, 153, 154, 155, 133),
     (46, 53, 52, 65, 55), 468),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263),
     (362, 382, 381, 380, 374, 373, 390, 249, 263),
     (285, 295, 282, 283, 276), 473),
)
# fmt: on
"""Points of MediaPipe's mesh, from left to right: upper lid, lower lid, lower edge of the brow; and the pupil."""
UNFOLDS = 0.25, 0.9  # from the brow (0) to the lashes (1): what is above stays, what is below is drawn out
LOWEST_BROW = 0.15  # eye widths between lashes and brow that are reckoned with at least
HALVINGS = 12  # of the way from brow to lashes, to find where on it a pixel comes from
EYEBALL = 0.4  # its radius over the width of the eye that lids leave open
IRIS = 0.22, 0.5  # eye widths from the pupil up to which an eyeball turns as one, and from which on nothing moves
LASHES = 0.06  # eye widths from a lid over which what turns gives way to what stays
GLANCES, AWAY = (0.09, 0.04), 0.5  # deviation of where eyes look, radians right and down; how often not at the viewer
HIDDEN = 0.5  # of the way from which on a lid hides that an eye turns


@dataclass(frozen=True, eq=False)
class Eye:
    """One eye of a picture.

    Attributes:
        part: of the picture that it may change; across it is the direction in which its lid shuts.
        along_hw: how far pixels are from the brow (0) to the lashes (1).
        height_hw: pixels from brow to lashes.
        open_hw: pixels from lashes to lower lid.
        turns_hw: how far pixels go along with the eyeball, 0 to 1.
    """

    part: Part
    along_hw: Tensor
    height_hw: Tensor
    open_hw: Tensor
    turns_hw: Tensor

    @classmethod
    def of(cls, landmarks: np.ndarray, points: Sequence, shape: tuple[int, ...]) -> "Eye":
        """By the mesh's landmarks [478, 3], one of ``EYES``, and the picture's shape (H, W, …)."""
        lines, pupil = [landmarks[list(line), :2] for line in points[:3]], landmarks[points[3], :2]
        part = Part.around(np.concatenate(lines), lines[0][0], lines[0][-1], shape)
        u, v, width = part.u_hw, part.v_hw, part.width
        upper, lower, brow = (part.line(line) for line in lines)
        height = (upper - brow).clamp(min=LOWEST_BROW * width)
        opened = torch.where((u > 0) & (u < width), (lower - upper).clamp(min=0), 0)
        away = (torch.stack([u, v], -1) - torch.from_numpy(part.own(pupil))).norm(dim=-1) / width
        from_lid = torch.minimum(v - upper, lower - v) / width
        turns = smoothstep(IRIS[1], IRIS[0], away) * smoothstep(0, LASHES, from_lid) * (opened > 0)
        maps = (1 + (v - upper) / height, height, opened, turns)
        along_hw, height_hw, open_hw, turns_hw = (a.float() for a in maps)
        return cls(part, along_hw, height_hw, open_hw, turns_hw)

    def moved(self, picture_hw3: np.ndarray, shut: float, turned_2: Sequence[float]) -> np.ndarray:
        """Its part of the picture, uint8: turned by radians right and down, its lid shut by a share of the way."""
        shown_3hw = self.part.of(picture_hw3)
        if any(turned_2):
            by_2 = -EYEBALL * self.part.width * np.asarray(turned_2, np.float32)
            shown_3hw = sample(shown_3hw, self.turns_hw[..., None] * torch.from_numpy(by_2).float())
        if shut:
            drop_hw = shut * self.open_hw / self.height_hw
            low_hw, high_hw = torch.zeros_like(drop_hw), torch.ones_like(drop_hw)
            for _ in range(HALVINGS):
                middle_hw = (low_hw + high_hw) / 2
                above_hw = middle_hw + drop_hw * smoothstep(*UNFOLDS, middle_hw) < self.along_hw
                low_hw, high_hw = torch.where(above_hw, middle_hw, low_hw), torch.where(above_hw, high_hw, middle_hw)
            up_hw = torch.where(self.along_hw > 0, (low_hw - self.along_hw) * self.height_hw, 0)
            lid_3hw = sample(shown_3hw, self.part.across(up_hw))
            edge_hw = ((1 + drop_hw - self.along_hw) * self.height_hw + 0.5).clamp(0, 1) * (drop_hw > 0)
            shown_3hw = shown_3hw + edge_hw * (lid_3hw - shown_3hw)
        return as_bytes(shown_3hw)


class Gaze:
    """Where eyes look: behind a lid that shuts they turn elsewhere, or back to the viewer, as people's do."""

    def __init__(self) -> None:
        self.rng, self.turned_2, self.hidden = np.random.default_rng(0), np.zeros(2), False

    def __call__(self, shut: float) -> np.ndarray:
        """Radians right and down in the next frame, whose lids are shut by a share of the way."""
        if shut > HIDDEN and not self.hidden:
            self.turned_2 = (self.rng.random() < AWAY) * self.rng.normal(size=2) * GLANCES
        self.hidden = shut > HIDDEN
        return self.turned_2


def move_eyes(picture_hw3: np.ndarray, eyes: list[Eye], shut: float, turned_2: Sequence[float]) -> np.ndarray:
    """The picture with other eyes (see ``Eye.moved``); the same array where nothing changes."""
    if not eyes or not (shut or any(turned_2)):
        return picture_hw3
    picture_hw3 = picture_hw3.copy()
    for eye in eyes:
        picture_hw3[eye.part.where] = eye.moved(picture_hw3, shut, turned_2)
    return picture_hw3
