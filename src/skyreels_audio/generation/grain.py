"""Canvas, film, the noise of a camera: what is drawn into a picture has it too, or looks cleaner than all around it."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LOUD = 2.0  # medians of what grain is, above which it is an edge


class Grain:
    """How the pixels of a piece of skin differ from those around them, as a share of its light.

    Args:
        picture_hw3: uint8.
        middle_2: of the piece, x and y in pixels; ``half_2``: how far it reaches from there, each way.
        smooth: pixels over which skin is even but for its grain.
    """

    def __init__(self, picture_hw3: np.ndarray, middle_2: np.ndarray, half_2: np.ndarray, smooth: float) -> None:
        limit = np.array(picture_hw3.shape[1::-1])
        low = np.clip((middle_2 - half_2).astype(int), 0, limit - 1)
        high = np.clip((middle_2 + half_2).astype(int) + 1, low + 1, limit)
        skin = torch.from_numpy(picture_hw3[low[1] : high[1], low[0] : high[0]].copy()).permute(2, 0, 1)[None].float()
        side = max(round(smooth / 2), 1)
        skin = skin.mean(1, keepdim=True)
        grain = skin - F.avg_pool2d(skin, 2 * side + 1, 1, side, count_include_pad=False)
        usual = LOUD * float(grain.abs().median())
        self.low, self.size = torch.from_numpy(low), torch.from_numpy(high - low)
        self.grain_11hw = grain.clamp(-usual, usual) / skin.mean().clamp(min=1)

    def at(self, place_n2: Tensor) -> Tensor:
        """Of any places of the picture [1, n]: the piece of skin, mirrored over and over."""
        grid = 2 * (place_n2 - self.low) / self.size - 1
        return F.grid_sample(self.grain_11hw, grid[None, None], padding_mode="reflection", align_corners=False)[0, :, 0]
