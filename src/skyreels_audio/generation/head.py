"""How the turn of a head carries the pixels of a picture. Shape letters: h w pixels of the picture."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.models.inner_mouth import smoothstep

# An ellipsoid in the aligned frame (fractions of it): centre, half axes, and how deep it is.
CENTRE, AXES, DEPTH = np.array([0.5, 0.48]), np.array([0.33, 0.46]), 0.26
ENDS = 1.0, 1.9  # in half axes: the head moves as one up to here, what surrounds it is still from there on
NECK = np.array([0.5, 1.0])  # what the head rolls about


class Head:
    """A head at places ``at_hw2`` of an aligned crop of ``size`` (W, H), in its pixels.

    ``REACH``: the corners of what may move, fractions of the crop.
    """

    REACH: ClassVar = (CENTRE - ENDS[1] * AXES, CENTRE + ENDS[1] * AXES)

    def __init__(self, at_hw2: Tensor, size: np.ndarray) -> None:
        self.size = torch.from_numpy(size).float()
        at_hw2 = at_hw2 / self.size
        away_hw2 = (at_hw2 - torch.from_numpy(CENTRE).float()) / torch.from_numpy(AXES).float()
        away_hw = away_hw2.square().sum(-1).sqrt()
        self.weight_hw = smoothstep(ENDS[1], ENDS[0], away_hw)
        self.depth_hw = DEPTH * (1 - away_hw.clamp(max=1).square()).clamp(min=0).sqrt()
        self.from_neck_hw2 = at_hw2 - torch.from_numpy(NECK).float()

    def flow(self, turn_5: Tensor) -> Tensor:
        """How far each place was carried by yaw, pitch and roll and by two shifts, crop pixels [h, w, 2]."""
        yaw, pitch, roll, right, down = turn_5.float().tolist()
        turned = torch.stack([self.depth_hw * yaw, self.depth_hw * pitch], -1)
        rolled = torch.stack([-self.from_neck_hw2[..., 1] * roll, self.from_neck_hw2[..., 0] * roll], -1)
        return self.weight_hw[..., None] * (turned + rolled + torch.tensor([right, down])) * self.size
