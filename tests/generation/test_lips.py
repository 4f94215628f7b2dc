"""Lips go together over what is between them; what they cover is gone, and all else of the face stays."""

import numpy as np
import pytest
from drawn_mouth import oval

from skyreels_audio.generation.lips import Lips

HEIGHT = 300  # of the face, about


def between(picture: np.ndarray) -> np.ndarray:
    """Rows of the middle column that are teeth or dark: there red is hardly more than green."""
    column = picture[:, 160].astype(int)
    return np.flatnonzero(column[:, 0] - column[:, 1] < 25)


def test_open_lips_are_the_picture(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    assert Lips.of(grinning, grin_picture.shape).closed(grin_picture, 0.0) is grin_picture


def test_the_way_is_a_share_of_what_they_are_apart(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    lips = Lips.of(grinning, grin_picture.shape)
    assert lips.aperture == pytest.approx(27 / HEIGHT, abs=0.01)  # the mean of three places
    whole = len(between(grin_picture))
    assert whole == pytest.approx(30, abs=2)
    for share in (0.25, 0.5, 0.75):
        left = between(lips.closed(grin_picture, share))
        assert len(left) == pytest.approx((1 - share) * whole, abs=4)
        assert len(left) == left.max() - left.min() + 1  # one opening
    assert len(between(lips.closed(grin_picture, 1.0))) <= 2


def test_teeth_stay_where_they_are(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    half = Lips.of(grinning, grin_picture.shape).closed(grin_picture, 0.5)
    left = between(half)
    inner = slice(left.min() + 3, left.max() - 2)
    assert np.array_equal(half[inner, 160], grin_picture[inner, 160])


def test_the_chin_goes_along_and_the_nose_does_not(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    marked = grin_picture.copy()
    marked[209:212, 150:170] = 0  # on the chin
    marked[120:123, 150:170] = 0  # under the nose
    closed = Lips.of(grinning, marked.shape).closed(marked, 1.0)
    rows = np.flatnonzero(closed[172:, 160].max(1) < 60) + 172
    assert 175 < rows.mean() < 195
    assert np.array_equal(closed[:126], marked[:126])
    assert np.array_equal(closed[:, :60], marked[:, :60])


def test_lips_turn_with_the_head(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    """A picture on its side closes as the upright one does."""
    side = np.rot90(grin_picture, -1).copy()  # (x, y) -> (height - y, x)
    points = np.stack([grin_picture.shape[0] - grinning[:, 1], grinning[:, 0]], -1)
    closed = np.rot90(Lips.of(points, side.shape).closed(side, 0.6))
    upright = Lips.of(grinning, grin_picture.shape).closed(grin_picture, 0.6)
    assert np.abs(closed.astype(int) - upright).max() <= 3


def test_lips_of_a_wide_open_mouth_meet_along_a_level_line(grinning: np.ndarray) -> None:
    """Not along the arch of its upper lip, which would be a frown."""
    wide = grinning.copy()
    wide[48:60], wide[60:68] = oval(60, 60, 12), oval(48, 44, 8)
    lips = Lips.of(wide, (220, 320))
    upper, falls = lips.within_2hw[0, 0] + lips.part.v_hw[0], lips.edges_2hw[0, 0]
    inside = (lips.part.u_hw[0] > 6) & (lips.part.u_hw[0] < lips.part.width - 6)
    assert float(upper[inside].max() - upper[inside].min()) > 25
    assert float((upper + falls)[inside].max() - (upper + falls)[inside].min()) < 10


def test_lips_of_a_smile_meet_along_its_curve(grinning: np.ndarray) -> None:
    smiling = grinning.copy()
    smiling[48:68, 1] += 30 - 30 * ((smiling[48:68, 0] - 160) / 48) ** 2
    lips = Lips.of(smiling, (220, 320))
    upper, falls = lips.within_2hw[0, 0] + lips.part.v_hw[0], lips.edges_2hw[0, 0]
    middle, end = (int((lips.part.u_hw[0] - at * lips.part.width).abs().argmin()) for at in (0.5, 0.05))
    assert float((upper + falls)[middle] - (upper + falls)[end]) > 6
