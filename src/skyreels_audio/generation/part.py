"""A part of a picture that is moved by landmarks, at the picture's own resolution: an eye, or the lips.

Shapes: h w pixels of the part.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import PchipInterpolator
from torch import Tensor

FINE = 512  # places along a line at which it is computed


@dataclass(frozen=True, eq=False)
class Part:
    """Where a part is, and its own coordinates: along it from its left corner to its right one, and across.

    Attributes:
        where: rows and columns of the picture.
        left: its left corner, pixels of the picture right and down.
        axes_22: unit vectors of its coordinates, right and down.
        width: pixels from corner to corner.
        u_hw, v_hw: coordinates of its pixels, in pixels: along and across, of ``left``.
    """

    where: tuple[slice, slice]
    left: np.ndarray
    axes_22: np.ndarray
    width: float
    u_hw: Tensor
    v_hw: Tensor

    @classmethod
    def around(cls, points_N2: np.ndarray, left: np.ndarray, right: np.ndarray, shape: tuple[int, ...]) -> "Part":
        """The part of a picture (H, W, …) that these points (pixels) span."""
        width = max(float(np.linalg.norm(right - left)), 1.0)
        across = (right - left) / width
        axes_22 = np.array([across, [-across[1], across[0]]])
        x0, y0 = np.clip(np.floor(points_N2.min(0)).astype(int), 0, [shape[1] - 1, shape[0] - 1])
        x1, y1 = np.clip(np.ceil(points_N2.max(0)).astype(int) + 1, [x0 + 1, y0 + 1], shape[1::-1])
        y, x = np.mgrid[y0:y1, x0:x1] + 0.5
        u_hw, v_hw = torch.from_numpy((np.stack([x, y], -1) - left) @ axes_22.T).unbind(-1)
        return cls((slice(y0, y1), slice(x0, x1)), left, axes_22, width, u_hw, v_hw)

    def own(self, points_N2: np.ndarray) -> np.ndarray:
        """Points of the picture in the part's coordinates."""
        return (points_N2 - self.left) @ self.axes_22.T

    def line(self, points_N2: np.ndarray) -> Tensor:
        """How far across a smooth line through points is, where each pixel is along [h, w]; beyond its ends level."""
        points_N2 = self.own(points_N2)
        u = np.maximum.accumulate(points_N2[:, 0]) + 1e-3 * np.arange(len(points_N2))
        table = PchipInterpolator(u, points_N2[:, 1])(np.linspace(u[0], u[-1], FINE))  # pixels are many
        at_hw = ((self.u_hw - u[0]) * ((FINE - 1) / (u[-1] - u[0]))).clamp(0, FINE - 1)
        first_hw = at_hw.long().clamp(max=FINE - 2)
        v = torch.from_numpy(table)
        return torch.lerp(v[first_hw], v[first_hw + 1], at_hw - first_hw)

    def of(self, picture_HW3: np.ndarray) -> Tensor:
        """Its pixels [3, h, w], 0 to 255."""
        return torch.from_numpy(picture_HW3[self.where]).permute(2, 0, 1).float()

    def across(self, by_hw: Tensor) -> Tensor:
        """Ways across the part as ways in the picture [h, w, 2]."""
        return by_hw[..., None].float() * torch.from_numpy(self.axes_22[1]).float()


def as_bytes(pixels_3hw: Tensor) -> np.ndarray:
    """Pixels as a picture has them, uint8 [h, w, 3]."""
    return pixels_3hw.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def sample(picture_3hw: Tensor, from_hw2: Tensor, mode: str = "bilinear") -> Tensor:
    """Each pixel from so many pixels right and down of where it is."""
    height, width = picture_3hw.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid_hw2 = 2 * (torch.stack([x, y], -1) + 0.5 + from_hw2) / torch.tensor([width, height]) - 1
    return F.grid_sample(picture_3hw[None], grid_hw2[None], mode, "border", align_corners=False)[0]
