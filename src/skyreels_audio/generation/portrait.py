"""A portrait of which only a region is to move: brought into the frame of training, and back."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from skyreels_audio.faces.align import feather, paste, placement
from skyreels_audio.faces.framing import region_mask
from skyreels_audio.faces.warp import invert, warp

SEAM = 0.04  # of the frame's height: how softly the region meets the picture


@dataclass(frozen=True, eq=False)
class Portrait:
    """A picture of any size, and the same with mouth and eyes where training has them, in the size of training.

    uint8 [H, W, 3] both.
    """

    picture: np.ndarray
    aligned: np.ndarray
    place: np.ndarray
    """Affine map [2, 3] from pixels of ``aligned`` to pixels of ``picture``."""
    region: np.ndarray
    """True [H, W] where ``aligned`` may change."""
    mask: np.ndarray
    """``region`` with soft edges."""

    landmarks: np.ndarray
    """Of the face, in pixels of ``aligned``."""

    @classmethod
    def align(cls, picture: np.ndarray, landmarks: np.ndarray, region: str, size: tuple[int, int]) -> "Portrait":
        """Align a face of a picture, of which a region of ``faces.framing`` may move, to ``size`` (H, W)."""
        place = placement(landmarks, size)
        inside = region_mask(region, size)
        mask, back, moved = feather(inside, SEAM * size[0]), invert(place), landmarks.copy()
        moved[:, :2] = landmarks[:, :2] @ back[:, :2].T + back[:, 2]
        return cls(picture, warp(Image.fromarray(picture), place, size), place, inside, mask, moved)

    def with_region_of(self, frame: np.ndarray) -> np.ndarray:
        """The picture with the region of a frame that was made from ``aligned``."""
        return paste(self.picture, frame, self.place, self.mask)
