"""Lids are the picture's own skin: they cover the eye from above, and nothing else changes."""

import numpy as np
import pytest

from skyreels_audio.generation.lids import EYES, Lid, shut_eyes

SKIN, EYEBALL = 180, 20


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    """Two eyes 80 pixels wide and 30 open, their brows 50 above the corners; the second one is turned by 30°."""
    points = np.zeros((478, 3), np.float32)
    turn = np.radians(30)
    axes = (np.eye(2), np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]))
    for (upper, lower, brow), origin, axis in zip(EYES, ([60, 120], [220, 100]), axes, strict=True):
        u = np.linspace(0, 80, 9)
        arch = 60 / 80**2 * u * (80 - u)
        for line, along, down in (
            (upper, u, -arch),
            (lower, u, arch),
            (brow, np.linspace(0, 80, 5), np.full(5, -50.0)),
        ):
            points[list(line), :2] = origin + np.stack([along, down], -1) @ axis
    return points


@pytest.fixture(scope="module")
def picture(landmarks: np.ndarray) -> np.ndarray:
    """Skin with a little texture, and eyes that are dark."""
    from skyreels_audio.faces.landmarks import coverage

    skin = np.random.default_rng(0).integers(SKIN - 5, SKIN + 6, (240, 360, 3)).astype(np.float32)
    for upper, lower, _ in EYES:
        eye = coverage(landmarks[[*upper, *lower[::-1]]], (240, 360))[..., None]
        skin += eye * (EYEBALL - skin)
    return skin.round().astype(np.uint8)


def shut(picture: np.ndarray, landmarks: np.ndarray, share: float) -> np.ndarray:
    return shut_eyes(picture, [Lid.of(landmarks, eye, picture.shape) for eye in EYES], share)


def test_open_eyes_are_the_picture(picture: np.ndarray, landmarks: np.ndarray) -> None:
    assert shut(picture, landmarks, 0.0) is picture


def test_shut_eyes_show_skin_alone(picture: np.ndarray, landmarks: np.ndarray) -> None:
    dark = (picture < 90).all(-1).sum()
    assert dark > 3000
    left = [(shut(picture, landmarks, share) < 90).all(-1).sum() / dark for share in (0.25, 0.5, 0.75, 1.0)]
    assert np.allclose(left, [0.75, 0.5, 0.25, 0], atol=0.07)


def test_lids_come_from_above_and_leave_all_else(picture: np.ndarray, landmarks: np.ndarray) -> None:
    changed = (shut(picture, landmarks, 1.0) != picture).any(-1)
    rows, columns = np.nonzero(changed[:, :180])
    assert rows.min() > 120 - 50 and rows.max() <= 120 + 16  # from below the brow to the lower lid
    assert columns.min() >= 59 and columns.max() <= 141


def test_an_eye_that_is_shut_stays_so(picture: np.ndarray, landmarks: np.ndarray) -> None:
    closed = landmarks.copy()
    for upper, lower, _ in EYES:
        closed[list(upper)] = closed[list(lower)]
    assert np.array_equal(shut(picture, closed, 1.0), picture)
