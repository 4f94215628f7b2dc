"""Eyes that shut: the skin between brow and lashes, drawn down over the eye at the picture's own resolution.

An open eye hides most of its lid, so a decoder can only paint it, and its paint of skin that it never saw is grey. But
landmarks say where lashes and brow are, and the skin above the fold looks much as the lid would.

Shapes: h w pixels of the part of a picture that a lid may cover.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from skyreels_audio.models.inner_mouth import smoothstep

# fmt: off
EYES = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133),
     (33, 7, 163, 144, 145, 153, 154, 155, 133),
     (46, 53, 52, 65, 55)),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263),
     (362, 382, 381, 380, 374, 373, 390, 249, 263),
     (285, 295, 282, 283, 276)),
)
# fmt: on
"""Points of MediaPipe's mesh of both eyes, from left to right: upper lid, lower lid, lower edge of the brow."""
UNFOLDS = 0.25, 0.9  # from the brow (0) to the lashes (1): what is above stays, what is below is drawn out
LOWEST_BROW = 0.15  # eye widths between lashes and brow that are reckoned with at least
HALVINGS = 12  # of the way from brow to lashes, to find where on it a pixel comes from


@dataclass(frozen=True, eq=False)
class Lid:
    """The upper lid of one eye of a picture.

    Attributes:
        part: rows and columns of the picture that it may cover, all below being of them.
        along_hw: how far pixels are from the brow (0) to the lashes (1).
        height_hw: pixels from brow to lashes.
        open_hw: pixels from lashes to lower lid.
        down_2: the direction (right, down) in which it shuts.
    """

    part: tuple[slice, slice]
    along_hw: Tensor
    height_hw: Tensor
    open_hw: Tensor
    down_2: tuple[float, float]

    @classmethod
    def of(cls, landmarks: np.ndarray, eye: tuple[tuple[int, ...], ...], shape: tuple[int, ...]) -> "Lid":
        """By the mesh's landmarks [478, 3] in a picture of ``shape`` (H, W, …)."""
        lines = [landmarks[list(line), :2] for line in eye]
        left, right = lines[0][0], lines[0][-1]
        width = max(float(np.linalg.norm(right - left)), 1.0)
        across = (right - left) / width
        axes_22 = np.array([across, [-across[1], across[0]]])
        low, high = (f(np.concatenate(lines), 0) for f in (np.min, np.max))
        x0, y0 = np.clip(np.floor(low).astype(int), 0, [shape[1] - 1, shape[0] - 1])
        x1, y1 = np.clip(np.ceil(high).astype(int) + 1, [x0 + 1, y0 + 1], shape[1::-1])
        y, x = np.mgrid[y0:y1, x0:x1] + 0.5
        u, v = np.moveaxis((np.stack([x, y], -1) - left) @ axes_22.T, -1, 0)
        upper, lower, brow = (_height(((line - left) @ axes_22.T), u) for line in lines)
        height = np.maximum(upper - brow, LOWEST_BROW * width)
        opened = np.where((u > 0) & (u < width), (lower - upper).clip(0), 0)
        along, height, opened = (
            torch.from_numpy(a.astype(np.float32)) for a in (1 + (v - upper) / height, height, opened)
        )
        return cls((slice(y0, y1), slice(x0, x1)), along, height, opened, (-float(across[1]), float(across[0])))

    def shut(self, picture_hw3: np.ndarray, share: float) -> np.ndarray:
        """Its part of the picture, the lid down by ``share`` of the way to the lower one."""
        drop_hw = share * self.open_hw / self.height_hw
        low_hw, high_hw = torch.zeros_like(drop_hw), torch.ones_like(drop_hw)
        for _ in range(HALVINGS):
            middle_hw = (low_hw + high_hw) / 2
            above_hw = middle_hw + drop_hw * smoothstep(*UNFOLDS, middle_hw) < self.along_hw
            low_hw, high_hw = torch.where(above_hw, middle_hw, low_hw), torch.where(above_hw, high_hw, middle_hw)
        moved_hw = torch.where(self.along_hw > 0, (low_hw - self.along_hw) * self.height_hw, 0)
        height, width = moved_hw.shape
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place_hw2 = torch.stack([x, y], -1) + 0.5 + moved_hw[..., None] * torch.tensor(self.down_2)
        open_3hw = torch.from_numpy(picture_hw3[self.part]).permute(2, 0, 1).float()
        grid_hw2 = 2 * place_hw2 / torch.tensor([width, height]) - 1
        lid_3hw = F.grid_sample(open_3hw[None], grid_hw2[None], padding_mode="border", align_corners=False)[0]
        edge_hw = ((1 + drop_hw - self.along_hw) * self.height_hw + 0.5).clamp(0, 1) * (drop_hw > 0)
        shown = open_3hw + edge_hw * (lid_3hw - open_3hw)
        return shown.round().byte().permute(1, 2, 0).numpy()


def shut_eyes(picture_hw3: np.ndarray, lids: list[Lid], share: float) -> np.ndarray:
    """The picture with its upper lids down by ``share`` of the way; the same array where that is none."""
    if not share:
        return picture_hw3
    picture_hw3 = picture_hw3.copy()
    for lid in lids:
        picture_hw3[lid.part] = lid.shut(picture_hw3, share)
    return picture_hw3


def _height(points_N2: np.ndarray, across: np.ndarray) -> np.ndarray:
    """How far down a smooth line through points is; beyond its ends it goes on level."""
    x = np.maximum.accumulate(points_N2[:, 0]) + 1e-3 * np.arange(len(points_N2))
    return PchipInterpolator(x, points_N2[:, 1])(across.clip(x[0], x[-1]))
