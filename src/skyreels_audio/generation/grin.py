"""A picture whose lips are apart: the teeth it bares, and the same picture with lips in their place.

Teeth belong to the skull, and lips that close over them cannot take them along. A decoder that says where they are
has seen usual ones, and takes the lower half of tall ones for a lip; but landmarks say where lips are, and what is
white between them are teeth.

Shapes: H W pixels of the picture, h w of the part with the lips.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_propagation, gaussian_filter, grey_erosion, maximum_filter

from skyreels_audio.faces.landmarks import coverage, face_height, lip_contours

WHITE = 0.45, 0.6  # brightness over that of white in a face's light, between which teeth are told from gaps
EDGE, SPREAD = 0.006, 0.03  # of the face's height: teeth shine that far into lips; and what lips are smoothed by
SOME, SPECK, EVEN = 0.3, 0.012, 0.004  # of a pixel; of the face's height: what is smaller is no tooth; edges of teeth
SOFT, DEEP, SHADE = 0.01, (0.5, 0.95), 0.6  # of the face's height; how far between lips it gets darker, and by what


@dataclass(frozen=True, eq=False)
class Grin:
    """Lips that are apart.

    Attributes:
        part: rows and columns of the picture with its lips, which all below is of.
        teeth_hw: how far pixels are teeth, 0 to 1.
        lips_hw3: uint8, with lips where teeth were.
    """

    part: tuple[slice, slice]
    teeth_hw: np.ndarray
    lips_hw3: np.ndarray

    @classmethod
    def of(cls, picture_HW3: np.ndarray, landmarks: np.ndarray, white: float) -> "Grin":
        """By landmarks of either layout, and how bright white is in the face's light, 0 to 1."""
        height, contours = face_height(landmarks), [points[:, :2] for points in lip_contours(landmarks)]
        margin, limit = SPREAD * height, picture_HW3.shape[1::-1]
        x0, y0 = np.floor(contours[0].min(0) - margin).astype(int).clip(0, np.array(limit) - 1)
        x1, y1 = np.ceil(contours[0].max(0) + margin).astype(int).clip([x0 + 1, y0 + 1], limit)
        part = slice(y0, y1), slice(x0, x1)
        shown_hw3 = picture_HW3[part].astype(np.float32)
        outer_hw, inner_hw = (coverage(points - [x0, y0], shown_hw3.shape[:2]) for points in contours)
        teeth_hw = inner_hw * _ramp(*WHITE, shown_hw3.mean(2) / (255 * white))
        covered_hw = maximum_filter(teeth_hw, 2 * round(EDGE * height) + 1)
        cores_hw = grey_erosion(teeth_hw, 2 * round(SPECK * height) + 1) > SOME
        teeth_hw = gaussian_filter(teeth_hw * binary_propagation(cores_hw, mask=teeth_hw > SOME), EVEN * height)
        only_hw = (outer_hw - inner_hw) * (covered_hw < 0.1)
        sums_hw4 = gaussian_filter(np.dstack([shown_hw3 * only_hw[..., None], only_hw]), (margin, margin, 0))
        # Away from them it is dark: that is the line between lips that meet.
        deep_hw = _ramp(*DEEP, gaussian_filter(inner_hw, SOFT * height))
        lips_hw3 = sums_hw4[..., :3] / (sums_hw4[..., 3:] + 1e-4) * (1 - SHADE * deep_hw)[..., None]
        lips_hw3 = shown_hw3 + covered_hw[..., None] * (lips_hw3 - shown_hw3)
        return cls(part, teeth_hw, lips_hw3.round().clip(0, 255).astype(np.uint8))


def _ramp(low: float, high: float, x: np.ndarray) -> np.ndarray:
    return ((x - low) / (high - low)).clip(0, 1)
