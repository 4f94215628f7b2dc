"""A drawn mouth whose lips are apart: lips, dark between them, and a row of teeth."""

import numpy as np
import pytest

from skyreels_audio.faces.landmarks import coverage

LIP, TOOTH, GAP, SKIN = (180, 70, 80), (230, 225, 215), (25, 10, 10), (210, 170, 150)


def oval(width: float, height: float, count: int) -> np.ndarray:
    angle = np.pi + 2 * np.pi * np.arange(count) / count
    return np.stack([160 + width * np.cos(angle), 150 + height * np.sin(angle)], -1)


@pytest.fixture(scope="module")
def grinning() -> np.ndarray:
    """68 points of a face about 300 pixels high, whose lips are 30 apart."""
    points = np.zeros((68, 2), np.float32)
    points[8], points[27], points[30], points[33] = (160, 215), (160, 40), (160, 100), (160, 128)
    points[48:60], points[60:68] = oval(60, 32, 12), oval(48, 15, 8)
    return points


@pytest.fixture(scope="module")
def grin_picture(grinning: np.ndarray) -> np.ndarray:
    shown = np.full((220, 320, 3), SKIN, np.float32)
    for contour, colour in ((grinning[48:60], LIP), (grinning[60:68], GAP), (oval(36, 8, 40), TOOTH)):
        shown += coverage(contour, shown.shape[:2])[..., None] * (np.array(colour) - shown)
    return shown.round().astype(np.uint8)
