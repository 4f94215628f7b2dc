"""Where a new shot begins."""

from collections import deque

import numpy as np
from PIL import Image

SURE = 30.0  # mean difference of neighbouring frames above which nothing else is asked (of 255)
LIKELY = 8.0  # and above which a cut is likely, if …
STAND_OUT = 4.0  # … it is so many times the usual difference of the frames before, and
COLOURS = 0.25  # … this share of the pixels has other colours (of 1)
USUAL = 8  # frames that tell what is usual
_LUMA_STEP = 64 * (np.arange(256) // 32)
_CHROMA_STEP = np.clip((np.arange(256) - 96) // 8, 0, 7)


class CutDetector:
    """Tells of each frame whether it begins a new shot.

    Content and histogram, as in PySceneDetect's detectors: a cut changes where things are and which colours there are,
    at once. Moves change the first alone, a light that is switched on the second more than the first.
    """

    def __init__(self) -> None:
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._usual: deque[float] = deque(maxlen=USUAL)

    def __call__(self, picture: Image.Image) -> bool:
        ycc = picture.reduce(max(1, min(picture.size) // 128)).convert("YCbCr")
        thumbnail = np.asarray(ycc.resize((32, 18), Image.Resampling.BOX), np.float32)
        colours = _colours(np.asarray(ycc))
        before, self._before = self._before, (thumbnail, colours)
        if before is None:
            return False
        difference = float(np.abs(thumbnail - before[0]).mean(axis=(0, 1)) @ [0.6, 0.2, 0.2])
        changed = float(np.abs(colours - before[1]).sum()) / 2
        usual = float(np.mean(self._usual)) if self._usual else 1.0
        cut = difference > SURE or (difference > max(LIKELY, STAND_OUT * usual) and changed > COLOURS)
        self._usual.append(0.0 if cut else difference)
        return cut


def _colours(ycc: np.ndarray) -> np.ndarray:
    """Shares of the pixels in 8 × 8 × 8 steps of Y, Cb, Cr around the middle of the colours, where faces are."""
    index = _LUMA_STEP[ycc[..., 0]] + 8 * _CHROMA_STEP[ycc[..., 1]] + _CHROMA_STEP[ycc[..., 2]]
    return np.bincount(index.ravel(), minlength=512) / index.size
