"""Lips that come together, moved in the picture at its own resolution.

A decoder guesses from pixels how far a mouth is open, and what it does not take for open it does not close. Landmarks
say where the lips' edges are: both lips, and the chin with the lower one, are drawn together over what is between them,
which stays where it is. Teeth that somebody bares are covered by his own lips, as in life.

Shapes: h w pixels of the part of a picture that belongs to the mouth.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.faces import lip_aperture
from skyreels_audio.faces.landmarks import CHIN, MESH_POINTS, NOSE_BASE, as_68, face_height, lip_contours
from skyreels_audio.generation.part import Part, as_bytes, sample
from skyreels_audio.models.inner_mouth import smoothstep

UPPER = 0.4  # share of the way that the upper lip goes,
STRETCH = 0.22  # and at most this share of its distance from the nose; skin above it is drawn out by half as much again
RIM = 0.006  # of the face's height, by which each lip goes further: edges by landmarks lie within what shines of teeth
SOFT = 0.006  # of the face's height, how soft the edge of a lip is that covers something
SHADE = 0.15  # what lips lose of their light where they touch
TOO_HIGH = 0.15  # of what lips are apart: by which the mesh has an upper lip's edge too high, more in some pictures
CORNERS = 0.06  # of its width, by which an open mouth reaches beyond its corners by landmarks
CHEEKS, JAW = 1.9, (4, 12)  # half widths of the mouth, or else points of the jaw, up to which it takes skin along
NECK = 0.14  # of the face's height below the chin up to which it does
LIP = 0.5  # share of the way to the chin over which what follows the lip's edge becomes what follows the jaw


@dataclass(frozen=True, eq=False)
class Lips:
    """The lips of a picture.

    Attributes:
        aperture: how far they are apart, over the face's height.
        part: of the picture that they move.
        within_2hw: pixels within the upper and the lower lip, from their inner edges.
        goes_2hw: pixels across that each goes until they meet, and what is near with it.
        edges_2hw: the same of the edges themselves.
        apart_hw: 1 where along the mouth lips are apart, 0 where they are not.
        soft: width of an edge in pixels.
    """

    aperture: float
    part: Part
    within_2hw: Tensor
    goes_2hw: Tensor
    edges_2hw: Tensor
    apart_hw: Tensor
    soft: float

    @classmethod
    def of(cls, landmarks: np.ndarray, shape: tuple[int, ...]) -> "Lips":
        """By landmarks of either layout (pixels), in a picture of this shape (H, W, …)."""
        height, points = face_height(landmarks), as_68(landmarks).astype(np.float64)
        inner = lip_contours(landmarks)[1][:, :2].astype(np.float64)
        half = len(inner) // 2
        if len(landmarks) == MESH_POINTS:
            inner[1:half] += TOO_HIGH * (inner[:half:-1] - inner[1:half])
        inner[[0, half]] += CORNERS * np.stack([inner[0] - inner[half], inner[half] - inner[0]])
        left, right, chin, nose = inner[0], inner[half], points[CHIN], points[NOSE_BASE]
        across, down = _unit(right - left), NECK * height * _unit(chin - nose)
        middle, widest = (left + right) / 2, CHEEKS * float(np.linalg.norm(right - left)) / 2
        # The jaw, which is wider than a round mouth, takes along what lies before it, on either side.
        reaches = [
            max(widest, float(side * (points[at] - middle) @ across)) for side, at in zip((-1, 1), JAW, strict=True)
        ]
        ends = np.stack([at + by * across for at in (nose, middle, chin + down) for by in (-reaches[0], reaches[1])])
        part = Part.around(ends, left, right, shape)
        upper, lower = part.line(inner[: half + 1]), part.line(np.r_[inner[:1], inner[: half - 1 : -1]])
        lower = torch.maximum(upper, lower)
        u, v = part.u_hw - part.width / 2, part.v_hw
        reach = torch.where(u < 0, reaches[0], reaches[1])
        (_, at_nose), (_, at_chin) = part.own(nose), part.own(chin)
        gap = lower - upper
        apart = smoothstep(0, 2 * RIM * height, gap)
        rim = RIM * height * apart
        to_nose = (upper - at_nose).clamp(min=1)
        # Lips of a mouth that was wide open would meet along an arch: its corners are drawn up with the jaw.
        line = upper + torch.minimum(UPPER * gap, STRETCH * to_nose)
        beside = ((u.abs() - part.width / 2) / (reach - part.width / 2)).clamp(0, 1)
        arch = line.clamp(max=0)  # a smile's line, which hangs, stays
        line = line + (arch.amin() - arch) * (1 - beside.square()).square()
        falls, rises = line - upper, lower - line
        jaw = rises.amax() * (1 - (u / reach).square()).clamp(min=0).square()
        to_chin = (v - lower) / (at_chin - lower).clamp(min=1)
        falls, rises = falls + rim, rises + rim
        raised = torch.lerp(rises, jaw, smoothstep(0, LIP, to_chin)) * smoothstep(at_chin + NECK * height, at_chin, v)
        lowered = falls * smoothstep(0.4, 1, (v - at_nose) / to_nose)
        within_2hw, goes_2hw, edges_2hw = (
            torch.stack(pair).float() for pair in ((upper - v, v - lower), (lowered, -raised), (falls, rises))
        )
        return cls(
            lip_aperture(landmarks), part, within_2hw, goes_2hw, edges_2hw, apart.float(), max(SOFT * height, 1.0)
        )

    def closed(self, picture_HW3: np.ndarray, share: float) -> np.ndarray:
        """The picture with lips that went a share of the way; the same array where that is none."""
        if share <= 0:
            return picture_HW3
        shown_3hw = result_3hw = self.part.of(picture_HW3)
        for within_hw, goes_hw, edge_hw in zip(self.within_2hw, self.goes_2hw, self.edges_2hw, strict=True):
            lip_3hw = sample(shown_3hw, -share * self.part.across(goes_hw), "bicubic")
            from_edge_hw = (within_hw + share * edge_hw) / self.soft
            covers_hw = (from_edge_hw + 0.5).clamp(0, 1)
            shade_hw = SHADE * share**4 * self.apart_hw * torch.exp(-(from_edge_hw.square()) / 4)  # of lips that touch
            result_3hw = torch.lerp(result_3hw, lip_3hw * (1 - shade_hw), covers_hw)
        picture_HW3 = picture_HW3.copy()
        picture_HW3[self.part.where] = as_bytes(result_3hw)
        return picture_HW3


def _unit(vector_2: np.ndarray) -> np.ndarray:
    return vector_2 / max(float(np.linalg.norm(vector_2)), 1e-6)
