"""Colour unification: long videos tend to darken, so their colour statistics are brought back to the reference's."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.faces import lower_face_box

# sRGB primaries and the D65 white point (IEC 61966-2-1), rows X Y Z, divided by the white so that white is (1, 1, 1).
_XYZ_FROM_RGB = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / torch.tensor([[0.95047], [1.0], [1.08883]])
_LAB_FROM_ROOTS = torch.tensor([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
_KNEE = 6 / 29  # below it CIE's cube root is a straight line

_LEVELS = torch.arange(256) / 255
_LINEAR = torch.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4)
_FINE = 1 << 14  # steps of a table of the inverse; at its steepest one step is 0.2 levels
_NEAREST_LEVEL = torch.bucketize(torch.arange(_FINE + 1) / _FINE, (_LINEAR[1:] + _LINEAR[:-1]) / 2).to(torch.uint8)


def rgb_to_lab(rgb_HWC: Tensor) -> Tensor:
    """uint8 sRGB [..., 3] → CIE L*a*b* (D65), float32."""
    xyz = _LINEAR[rgb_HWC.int()] @ _XYZ_FROM_RGB.T
    roots = torch.where(xyz > _KNEE**3, xyz.clamp(min=0) ** (1 / 3), xyz / (3 * _KNEE**2) + 4 / 29)
    return roots @ _LAB_FROM_ROOTS.T - torch.tensor([16.0, 0.0, 0.0])


def lab_to_rgb(lab_HWC: Tensor) -> Tensor:
    """CIE L*a*b* [..., 3] → uint8 sRGB, clipped to its gamut."""
    y = (lab_HWC[..., 0] + 16) / 116
    roots = torch.stack([y + lab_HWC[..., 1] / 500, y, y - lab_HWC[..., 2] / 200], dim=-1)
    xyz = torch.where(roots > _KNEE, roots**3, 3 * _KNEE**2 * (roots - 4 / 29))
    linear = (xyz @ torch.linalg.inv(_XYZ_FROM_RGB).T).clamp(0, 1)
    return _NEAREST_LEVEL[(linear * _FINE).round().int()]


def unify_colours(
    frames: Iterable[np.ndarray],
    reference: np.ndarray,
    strength: float = 1.0,
    region_HW: np.ndarray | None = None,
    radius: int = 12,
) -> Iterator[np.ndarray]:
    """Give every frame the mean and spread in Lab that the reference has (Reinhard et al. 2001, "Color Transfer").

    Per-frame statistics are smoothed over ``radius`` frames to either side: what a mouth or a blink does to them must
    not make the picture flicker. Frames come out in order, ``radius`` frames late, so memory does not grow.

    Args:
        frames: uint8 RGB [H, W, 3].
        reference: uint8 RGB, same size.
        strength: 0 leaves frames as they are, 1 corrects in full.
        region_HW: True where the picture should not change (e.g. the background): statistics are taken there.
        radius: frames.
    """
    region = slice(None) if region_HW is None else torch.from_numpy(np.asarray(region_HW, dtype=bool)).flatten()
    mean_goal, spread_goal = _statistics(rgb_to_lab(torch.tensor(reference)), region)
    waiting: deque[Tensor] = deque()  # frames not yet returned
    around: deque[Tensor] = deque()  # statistics of the frames around the next one to return
    behind = 0  # how many of those frames have been returned

    def corrected_next() -> np.ndarray:
        nonlocal behind
        distances = (torch.arange(len(around)) - behind).abs()
        weights = 1 - distances / (radius + 1)
        mean, spread = torch.einsum("t,tsc->sc", weights / weights.sum(), torch.stack(list(around)))
        if behind < radius:
            behind += 1
        else:
            around.popleft()
        lab = waiting.popleft()
        goal = (lab - mean) * (spread_goal / spread.clamp(min=1e-3)).clamp(0.5, 2) + mean_goal
        return lab_to_rgb(torch.lerp(lab, goal, strength)).numpy()

    for frame in frames:
        waiting.append(rgb_to_lab(torch.tensor(frame)))
        around.append(torch.stack(_statistics(waiting[-1], region)))
        if len(waiting) > radius:
            yield corrected_next()
    while waiting:
        yield corrected_next()


def _statistics(lab_HWC: Tensor, region: slice | Tensor) -> tuple[Tensor, Tensor]:
    pixels_PC = lab_HWC.flatten(0, 1)[region]
    return pixels_PC.mean(dim=0), pixels_PC.std(dim=0)


def still_region(landmarks: np.ndarray | None, size: tuple[int, int]) -> np.ndarray | None:
    """Where speech changes no colours of a portrait of ``size`` (H, W): True [H, W] but for its lower face, if any.

    The rest of the face stays in: a background alone, often of one colour, tells little of how colours spread.
    """
    if landmarks is None:
        return None
    left, top, right, bottom = lower_face_box(landmarks)
    y, x = np.ogrid[: size[0], : size[1]]
    return (x < left) | (x > right) | (y < top) | (y > bottom)
