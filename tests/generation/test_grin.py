"""What is between lips that are apart is told from them, and no lip carries it."""

import numpy as np
import pytest

from skyreels_audio.faces.landmarks import coverage
from skyreels_audio.generation.grain import Grain
from skyreels_audio.generation.grin import Grin

LIP, TOOTH, GAP, SKIN = (180, 70, 80), (230, 225, 215), (25, 10, 10), (210, 170, 150)


def oval(width: float, height: float, count: int) -> np.ndarray:
    angle = np.pi + 2 * np.pi * np.arange(count) / count
    return np.stack([160 + width * np.cos(angle), 150 + height * np.sin(angle)], -1)


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    """68 points of a face about 300 pixels high, whose lips are 30 apart."""
    points = np.zeros((68, 2), np.float32)
    points[27], points[30], points[33] = (160, 40), (160, 100), (160, 128)
    points[48:60], points[60:68] = oval(60, 32, 12), oval(48, 15, 8)
    return points


@pytest.fixture(scope="module")
def picture(landmarks: np.ndarray) -> np.ndarray:
    shown = np.full((220, 320, 3), SKIN, np.float32)
    for contour, colour in ((landmarks[48:60], LIP), (landmarks[60:68], GAP), (oval(36, 8, 40), TOOTH)):
        shown += coverage(contour, shown.shape[:2])[..., None] * (np.array(colour) - shown)
    return shown.round().astype(np.uint8)


def test_teeth_are_what_is_white_between_lips(picture: np.ndarray, landmarks: np.ndarray) -> None:
    grin = Grin.of(picture, landmarks, 0.9)
    teeth = np.zeros((220, 320))
    teeth[grin.part] = grin.teeth_hw
    assert np.abs(teeth - coverage(oval(36, 8, 40), teeth.shape)).mean() < 0.003
    assert teeth[150, 160] == 1 and teeth[150, 120] == 0 and teeth[175, 160] == 0


def test_where_teeth_were_are_lips_with_a_dark_line(picture: np.ndarray, landmarks: np.ndarray) -> None:
    grin = Grin.of(picture, landmarks, 0.9)
    without = picture.copy()
    without[grin.part] = grin.lips_hw3
    assert without.max(2)[coverage(oval(36, 8, 40), (220, 320)) > 0].max() < 190  # nothing white
    assert without[150, 160].mean() < 0.8 * np.mean(LIP)  # the line
    assert without[150, 160, 0] > 1.5 * without[150, 160, 1]  # and red
    assert np.array_equal(without[162, 160], GAP)  # what is dark stays
    outside = coverage(oval(70, 42, 40), picture.shape[:2]) == 0
    assert np.array_equal(without[outside], picture[outside])


def test_grain_is_that_of_the_skin_anywhere() -> None:
    """A canvas of stripes goes on where it is asked for; an edge of the picture is no grain."""
    import torch

    picture = np.full((200, 200, 3), 100, np.uint8)
    picture[:, ::2] = 110
    picture[105:, :] = 250
    grain = Grain(picture, np.array([100.0, 100.0]), np.array([30.0, 15.0]), 4.0)
    x = torch.arange(40.0) + 0.5
    found = grain.at(torch.stack([x, torch.full_like(x, 20.5)], -1))
    assert found.abs().max() < 0.08 and (found[:, 0::2] * found[:, 1::2] < 0).float().mean() > 0.9
    assert found[0].std() > 0.02
    even = Grain(np.full((50, 50, 3), 90, np.uint8), np.array([25.0, 25.0]), np.array([8.0, 8.0]), 4.0)
    assert even.at(torch.zeros(3, 2)).abs().max() == 0
