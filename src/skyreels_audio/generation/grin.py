"""A picture whose lips are apart: the teeth it bares, and the same picture without them.

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
RIM, SURELY = 0.006, (0.7, 0.95)  # of the face's height: edges of teeth that have some of lips; a pixel that has none
# Of the face's height: how far teeth of videos shine, whence comes what covers them, and how soft their edges are.
SHINE, NEAR, EVENLY = 0.012, 0.015, 0.008
PALE, LESS_RED = (0.4, 0.6), (0.04, 0.14)  # brightness of such teeth over that of lips; how much less red they are
GAP = 0.4, 0.9  # how far between lips there is a gap, which is dark
FEW = 0.1  # of a pixel: where no more is teeth there are none


@dataclass(frozen=True, eq=False)
class Grin:
    """Lips that are apart.

    Attributes:
        part: rows and columns of the picture with its lips, which all below is of.
        teeth_hw: how far pixels are teeth, 0 to 1.
        lips_hw3: uint8, with lips where teeth were.
        enamel_hw3: uint8, with teeth's own colours up to their edges, which otherwise have some of the lips'.
        between_hw: how far pixels are between lips, 0 to 1.
    """

    part: tuple[slice, slice]
    teeth_hw: np.ndarray
    lips_hw3: np.ndarray
    enamel_hw3: np.ndarray
    between_hw: np.ndarray

    @classmethod
    def of(cls, picture_HW3: np.ndarray, landmarks: np.ndarray, white: float) -> "Grin":
        """By landmarks of either layout, and how bright white is in the face's light, 0 to 1."""
        mouth = _Mouth.of(picture_HW3, landmarks)
        height = mouth.height
        teeth_hw = mouth.inner_hw * _ramp(*WHITE, mouth.shown_hw3.mean(2) / (255 * white))
        covered_hw = maximum_filter(teeth_hw, 2 * round(EDGE * height) + 1)
        cores_hw = grey_erosion(teeth_hw, 2 * round(SPECK * height) + 1) > SOME
        teeth_hw = gaussian_filter(teeth_hw * binary_propagation(cores_hw, mask=teeth_hw > SOME), EVEN * height)
        between_hw = gaussian_filter(mouth.inner_hw, EVENLY * height)
        return cls(mouth.part, teeth_hw, mouth.with_lips(covered_hw), mouth.with_enamel(teeth_hw), between_hw)


def without_teeth(picture_HW3: np.ndarray, landmarks: np.ndarray, share: float = 1.0) -> np.ndarray:
    """A picture, uint8, in whose open mouth it is dark where teeth, of either jaw, were, or that share of it.

    The same object where there are none. Landmarks are of either layout. Teeth are less red than lips; in a picture
    without colours nothing is.
    """
    mouth = _Mouth.of(picture_HW3, landmarks)
    height, shown_hw3 = mouth.height, mouth.shown_hw3
    near_hw = mouth.outer_hw * maximum_filter(mouth.inner_hw, 2 * round(SHINE * height) + 1)
    red_hw = 1 - shown_hw3[..., 1] / shown_hw3[..., 0].clip(1)
    lips_hw = mouth.outer_hw - near_hw > 0.5
    if not lips_hw.any():
        return picture_HW3
    grey_hw = shown_hw3.mean(2)
    less_red_hw = _ramp(*LESS_RED, np.median(red_hw[lips_hw]) - red_hw)
    pale_hw = near_hw * less_red_hw * _ramp(*PALE, grey_hw / np.median(grey_hw[lips_hw]).clip(1))
    teeth_hw1 = gaussian_filter(maximum_filter(pale_hw, 2 * round(EDGE * height) + 1), EVENLY * height)[..., None]
    if teeth_hw1.max() < FEW:
        return picture_HW3
    weights_hw1 = (1 - teeth_hw1).clip(0.01)
    sums_hw4 = gaussian_filter(np.dstack([shown_hw3 * weights_hw1, weights_hw1]), (NEAR * height, NEAR * height, 0))
    deep_hw1 = _ramp(*GAP, gaussian_filter(mouth.inner_hw, SOFT * height))[..., None]
    dark_hw3 = sums_hw4[..., :3] / sums_hw4[..., 3:] * (1 - SHADE * deep_hw1)
    picture_HW3 = picture_HW3.copy()
    picture_HW3[mouth.part] = (shown_hw3 + share * teeth_hw1 * (dark_hw3 - shown_hw3)).round().clip(0, 255)
    return picture_HW3


@dataclass(frozen=True, eq=False)
class _Mouth:
    """The part of a picture with its lips, what is within their outer and inner edges, and the face's height."""

    part: tuple[slice, slice]
    shown_hw3: np.ndarray
    outer_hw: np.ndarray
    inner_hw: np.ndarray
    height: float

    @classmethod
    def of(cls, picture_HW3: np.ndarray, landmarks: np.ndarray) -> "_Mouth":
        height, contours = face_height(landmarks), [points[:, :2] for points in lip_contours(landmarks)]
        margin, limit = SPREAD * height, picture_HW3.shape[1::-1]
        x0, y0 = np.floor(contours[0].min(0) - margin).astype(int).clip(0, np.array(limit) - 1)
        x1, y1 = np.ceil(contours[0].max(0) + margin).astype(int).clip([x0 + 1, y0 + 1], limit)
        part = slice(y0, y1), slice(x0, x1)
        shown_hw3 = picture_HW3[part].astype(np.float32)
        outer_hw, inner_hw = (coverage(points - [x0, y0], shown_hw3.shape[:2]) for points in contours)
        return cls(part, shown_hw3, outer_hw, inner_hw, height)

    def with_lips(self, covered_hw: np.ndarray) -> np.ndarray:
        """Its pixels uint8 with lips over some, 0 to 1: the colours of what is not covered, smoothed."""
        only_hw = (self.outer_hw - self.inner_hw) * (covered_hw < 0.1)
        spread = SPREAD * self.height
        sums_hw4 = gaussian_filter(np.dstack([self.shown_hw3 * only_hw[..., None], only_hw]), (spread, spread, 0))
        # Away from them it is dark: that is the line between lips that meet.
        deep_hw = _ramp(*DEEP, gaussian_filter(self.inner_hw, SOFT * self.height))
        lips_hw3 = sums_hw4[..., :3] / (sums_hw4[..., 3:] + 1e-4) * (1 - SHADE * deep_hw)[..., None]
        lips_hw3 = self.shown_hw3 + covered_hw[..., None] * (lips_hw3 - self.shown_hw3)
        return lips_hw3.round().clip(0, 255).astype(np.uint8)

    def with_enamel(self, teeth_hw: np.ndarray) -> np.ndarray:
        """Its pixels uint8 with the edges of teeth in the colours of what is surely teeth near them."""
        surely_hw = _ramp(*SURELY, grey_erosion(teeth_hw, 2 * round(RIM * self.height) + 1))
        sums_hw4 = gaussian_filter(
            np.dstack([self.shown_hw3 * surely_hw[..., None], surely_hw]), (RIM * self.height, RIM * self.height, 0)
        )
        near_hw1 = _ramp(0, 0.002, sums_hw4[..., 3:]) * (1 - surely_hw[..., None])
        teeth_hw3 = sums_hw4[..., :3] / (sums_hw4[..., 3:] + 1e-6)
        return (self.shown_hw3 + near_hw1 * (teeth_hw3 - self.shown_hw3)).round().clip(0, 255).astype(np.uint8)


def _ramp(low: float, high: float, x: np.ndarray) -> np.ndarray:
    return ((x - low) / (high - low)).clip(0, 1)
