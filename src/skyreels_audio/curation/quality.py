"""Stage 3: is the picture sharp, clean, well lit, and is the camera steady. Pictures are luma, float32, 0 … 255."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from skyreels_audio.curation.footage import FPS, footage
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.stage import Stage, need_packages

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
MOTION_WIDTH = 160  # pixels of the frames in which motion is measured
FLOW_PAIRS = 6  # pairs of frames whose optical flow is measured
MOVING = 0.1  # grey levels: a mean step that no still picture has
NEAR = 2  # frames in which the picture must move for a frame to repeat it: a pause is not made of repeated frames
EQUAL = 0.2  # of the largest step near: a smaller one repeats the frame before, but for what an encoder adds
PERIODS = range(2, 6)  # frames after which a cadence of repeated frames, as of a slower video, begins again
SAME_PHASE = 0.5  # of the largest mean step of a cadence's phases: a frame of a smaller one repeats the one before
CYCLES = 5  # of a cadence that must be seen


class Quality(Stage):
    """Measures that need no model, on a few frames in the source's own resolution and on all frames made small."""

    name: ClassVar[str] = "quality"
    version: ClassVar[int] = 5

    def check(self) -> None:
        need_packages(self.name, "cv2")

    def __call__(self, clip: Clip) -> Clip:
        shown = footage(clip)
        stills = [still @ LUMA for still in shown.stills]
        small_FHW = _small(shown.luma_FHW)
        steps_F = np.abs(np.diff(shown.luma_FHW[:, ::2, ::2], axis=0)).mean(axis=(1, 2))
        return replace(
            clip,
            sharpness=float(np.median([sharpness(still) for still in stills])),
            noise=float(np.median([noise(still) for still in stills])),
            brightness=float(np.mean([exposure(still) for still in stills])),
            clipped=float(np.mean([((still < 4) | (still > 251)).mean() for still in stills])),
            blockiness=float(np.median([blockiness(still) for still in stills])),
            duplicates=duplicates(steps_F),
            shake=shake(small_FHW),
            flow=flow(small_FHW),
        )


def exposure(luma_HW: np.ndarray) -> float:
    """Middle between the dark and the bright parts of the picture, 0 … 1: a wall's size and colour say little of it."""
    return float(np.percentile(luma_HW, (5, 95)).mean() / 255)


def sharpness(luma_HW: np.ndarray) -> float:
    """1 - blur: how much a blur of nine pixels takes away from the picture's own steps, 0 … 1.

    Source: Crété et al., "The blur effect: perception and estimation with a new no-reference perceptual blur metric",
    2007.
    """
    from scipy.ndimage import uniform_filter1d

    blurs = []
    for axis in (0, 1):
        steps = np.abs(np.diff(luma_HW, axis=axis))
        blurred = np.abs(np.diff(uniform_filter1d(luma_HW, 9, axis=axis), axis=axis))
        total = float(steps.sum())
        blurs.append(1.0 if total < 1e-6 else 1 - float(np.maximum(steps - blurred, 0).sum()) / total)
    return 1 - max(blurs)


def noise(luma_HW: np.ndarray) -> float:
    """Standard deviation of the noise in grey levels, where the picture is smoothest.

    Source: Immerkær, "Fast noise variance estimation", 1996, on blocks of 16 pixels.
    """
    from scipy.ndimage import convolve

    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(convolve(luma_HW, mask))
    height, width = (side // 16 * 16 for side in luma_HW.shape)
    blocks = response[:height, :width].reshape(height // 16, 16, width // 16, 16).mean(axis=(1, 3))
    return float(np.percentile(blocks, 25) * np.sqrt(np.pi / 2) / 6)


def blockiness(luma_HW: np.ndarray) -> float:
    """Step across a border of blocks of 8 pixels over those two pixels before and behind it, median of all borders.

    1 without blocks. Each border is compared with what is beside it: between a head and a wall steps differ by more.
    """
    ratios = []
    for axis in (0, 1):
        steps = np.abs(np.diff(luma_HW, axis=axis)).mean(axis=1 - axis)
        border = np.arange(7, len(steps) - 2, 8)
        ratios.append(float(np.median(steps[border] / ((steps[border - 2] + steps[border + 2]) / 2 + 0.1))))
    return max(ratios)


def duplicates(steps_F: np.ndarray) -> float:
    """Share of frames that repeat the one before while the picture moves, of the mean grey steps between frames.

    What an encoder adds to a repeated frame can be half of a slow motion: alone it is not told from a slower moment,
    but where every second or third step is large, no motion is. The larger share of the two ways to see it counts.
    """
    from scipy.ndimage import maximum_filter1d

    if not len(steps_F):
        return 0.0
    near_F = maximum_filter1d(steps_F, 2 * NEAR + 1)
    moving_F = near_F > MOVING
    shares = [float(((steps_F <= EQUAL * near_F) & moving_F).mean())]
    for period in PERIODS:
        phases = [moving_F[phase::period] for phase in range(period)]
        if min(moving.sum() for moving in phases) >= CYCLES:
            relative_F = steps_F / near_F.clip(MOVING)
            means = np.array([relative_F[k::period][moving].mean() for k, moving in enumerate(phases)])
            shares.append(float((means <= SAME_PHASE * means.max()).mean() * moving_F.mean()))
    return max(shares)


def shake(small_FHW: np.ndarray) -> float:
    """Root mean square of what the picture's shift jumps to and fro from frame to frame, per mille of its width."""
    import cv2

    if len(small_FHW) < 4:
        return 0.0
    window = cv2.createHanningWindow(small_FHW.shape[:0:-1], cv2.CV_32F)
    shifts = [cv2.phaseCorrelate(a, b, window)[0] for a, b in zip(small_FHW[:-1], small_FHW[1:], strict=True)]
    jerks = np.diff(np.array(shifts), axis=0)
    return float(np.sqrt(np.square(jerks).sum(axis=1).mean()) / small_FHW.shape[2] * 1000)


def flow(small_FHW: np.ndarray) -> float:
    """Mean magnitude of the optical flow, share of the picture's width per second (Farnebäck, 2003)."""
    import cv2

    if len(small_FHW) < 2:
        return 0.0
    first = np.linspace(0, len(small_FHW) - 2, min(FLOW_PAIRS, len(small_FHW) - 1)).astype(int)
    lengths = []
    for index in first:
        before, after = (frame.astype(np.uint8) for frame in small_FHW[index : index + 2])
        field: Any = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 2, 13, 2, 5, 1.1, 0)  # pyright: ignore
        lengths.append(float(np.linalg.norm(field, axis=2).mean()))
    return float(np.mean(lengths) * FPS / small_FHW.shape[2])


def _small(luma_FHW: np.ndarray) -> np.ndarray:
    """Frames of ``MOTION_WIDTH`` pixels' width."""
    import cv2

    height = max(8, round(luma_FHW.shape[1] * MOTION_WIDTH / luma_FHW.shape[2]))
    size = (MOTION_WIDTH, height)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in luma_FHW])
