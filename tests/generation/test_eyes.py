"""Lids are the picture's own skin and cover the eye from above; an iris turns behind them; nothing else changes."""

import numpy as np
import pytest

from skyreels_audio.generation.eyes import EYEBALL, EYES, HIDDEN, Eye, Gaze, move_eyes

SKIN, DARK = 180, 20


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    """Two eyes 80 pixels wide and 30 open, their brows 50 above the corners; the second one is turned by 30°."""
    points = np.zeros((478, 3), np.float32)
    turn = np.radians(30)
    axes = (np.eye(2), np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]))
    for (upper, lower, brow, pupil), origin, axis in zip(EYES, ([60, 120], [220, 100]), axes, strict=True):
        u = np.linspace(0, 80, 9)
        arch = 60 / 80**2 * u * (80 - u)
        for line, along, down in (
            (upper, u, -arch),
            (lower, u, arch),
            (brow, np.linspace(0, 80, 5), np.full(5, -50.0)),
        ):
            points[list(line), :2] = origin + np.stack([along, down], -1) @ axis
        points[pupil, :2] = origin + np.array([40, 0]) @ axis
    return points


@pytest.fixture(scope="module")
def picture(landmarks: np.ndarray) -> np.ndarray:
    """Skin with a little texture, and eyes that are dark."""
    from skyreels_audio.faces.landmarks import coverage

    skin = np.random.default_rng(0).integers(SKIN - 5, SKIN + 6, (240, 360, 3)).astype(np.float32)
    for upper, lower, _, _ in EYES:
        eye = coverage(landmarks[[*upper, *lower[::-1]]], (240, 360))[..., None]
        skin += eye * (DARK - skin)
    return skin.round().astype(np.uint8)


def shut(picture: np.ndarray, landmarks: np.ndarray, share: float) -> np.ndarray:
    return move_eyes(picture, [Eye.of(landmarks, eye, picture.shape) for eye in EYES], share, (0.0, 0.0))


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
    for upper, lower, _, _ in EYES:
        closed[list(upper)] = closed[list(lower)]
    assert np.array_equal(shut(picture, closed, 1.0), picture)


def test_an_eyeball_turns_behind_its_lids(landmarks: np.ndarray) -> None:
    """A pupil goes as far as the radius says, in the picture's directions; lids and corners stay."""
    y, x = np.mgrid[:240, :360] + 0.5
    picture = np.full((240, 360, 3), 200, np.uint8)
    pupils = [landmarks[points[3], :2] for points in EYES]
    for right, down in pupils:
        picture[np.hypot(x - right, y - down) < 6] = 10
    eyes = [Eye.of(landmarks, points, picture.shape) for points in EYES]
    turned = move_eyes(picture, eyes, 0.0, (0.1, -0.05))
    for (right, down), side in zip(pupils, (slice(None, 180), slice(180, None)), strict=True):
        dark = 200.0 - turned[:, side, 0]
        found = (dark * x[:, side]).sum() / dark.sum() - right, (dark * y[:, side]).sum() / dark.sum() - down
        assert np.allclose(found, [0.1 * EYEBALL * 80, -0.05 * EYEBALL * 80], atol=0.35)
    noise = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
    changed = (move_eyes(noise, eyes, 0.0, (0.1, -0.05)) != noise).any(-1)
    for upper, lower, _, pupil in EYES:
        around = landmarks[pupil, :2] + 1.1 * (landmarks[list(upper + lower), :2] - landmarks[pupil, :2])
        assert (
            changed[tuple(landmarks[pupil, 1::-1].astype(int))]
            and not changed[tuple(around[:, ::-1].T.astype(int))].any()
        )


def test_eyes_look_elsewhere_only_behind_lids_and_often_at_the_viewer() -> None:
    shut = np.clip(1.5 * np.sin(np.arange(4000) / 5), 0, 1)  # a blink every 31 frames
    gaze = Gaze()
    turned_F2 = np.array([gaze(share) for share in shut])
    assert not turned_F2[: int(np.argmax(shut > HIDDEN))].any()
    changes = np.flatnonzero((turned_F2[1:] != turned_F2[:-1]).any(1)) + 1
    assert len(changes) > 60 and (shut[changes] > HIDDEN).all() and (shut[changes - 1] <= HIDDEN).all()
    at_viewer = np.mean(~turned_F2.any(1))
    assert 0.3 < at_viewer < 0.7 and np.abs(turned_F2).max() < 0.4
