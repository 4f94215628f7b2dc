"""What is between lips that are apart is told from them, and no lip carries it."""

import numpy as np
from drawn_mouth import GAP, LIP, oval
from scipy.ndimage import gaussian_filter, maximum_filter

from skyreels_audio.faces.landmarks import coverage
from skyreels_audio.generation.grain import Grain
from skyreels_audio.generation.grin import Grin, without_teeth


def test_teeth_are_what_is_white_between_lips(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    grin = Grin.of(grin_picture, grinning, 0.9)
    teeth = np.zeros((220, 320))
    teeth[grin.part] = grin.teeth_hw
    assert np.abs(teeth - coverage(oval(36, 8, 40), teeth.shape)).mean() < 0.003
    assert teeth[150, 160] == 1 and teeth[150, 120] < 0.01 and teeth[175, 160] == 0


def test_where_teeth_were_are_lips_with_a_dark_line(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    grin = Grin.of(grin_picture, grinning, 0.9)
    without = grin_picture.copy()
    without[grin.part] = grin.lips_hw3
    assert without.max(2)[coverage(oval(36, 8, 40), (220, 320)) > 0].max() < 190  # nothing white
    assert without[150, 160].mean() < 0.8 * np.mean(LIP)  # the line
    assert without[150, 160, 0] > 1.5 * without[150, 160, 1]  # and red
    assert np.array_equal(without[162, 160], GAP)  # what is dark stays
    outside = coverage(oval(70, 42, 40), without.shape[:2]) == 0
    assert np.array_equal(without[outside], grin_picture[outside])


def test_edges_of_teeth_have_nothing_of_lips(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    """A camera mixes the two there; all that counts as tooth, in any share, is as white as teeth's middle is."""
    mixed = gaussian_filter(grin_picture, (1.0, 1.0, 0))
    grin = Grin.of(mixed, grinning, 0.9)
    edge = (grin.teeth_hw > 0.3) & (grin.teeth_hw < 0.9)
    teeth = np.median(mixed[grin.part][grin.teeth_hw > 0.99], axis=0)
    before, after = (np.abs(a[edge].astype(float) - teeth).mean() for a in (mixed[grin.part], grin.enamel_hw3))
    assert edge.sum() > 50 and before > 25 and after < 10
    far = maximum_filter(grin.teeth_hw, 15) == 0
    assert np.array_equal(grin.enamel_hw3[far], mixed[grin.part][far])


def test_what_shines_beside_teeth_is_none(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    spotted = grin_picture.copy()
    spotted[161:163, 159:161] = 255
    grin = Grin.of(spotted, grinning, 0.9)
    teeth, without = np.zeros((220, 320)), spotted.copy()
    teeth[grin.part], without[grin.part] = grin.teeth_hw, grin.lips_hw3
    assert teeth[150, 160] == 1 and teeth[161:163, 159:161].max() < 0.01
    assert without[161:163, 159:161].max() < 190  # nor does it stay where lips are moved


def test_an_open_mouth_without_its_teeth_is_dark(grin_picture: np.ndarray, grinning: np.ndarray) -> None:
    without = without_teeth(grin_picture, grinning)
    between = coverage(oval(36, 8, 40), (220, 320)) == 1
    assert grin_picture[between].min() > 200 and without[between].max() < 120
    assert np.array_equal(without[168:], grin_picture[168:])  # lips stay as they are
    assert np.array_equal(without_teeth(grin_picture, grinning, 0.0), grin_picture)
    grey = np.repeat(grin_picture.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    assert np.array_equal(without_teeth(grey, grinning), grey)  # where teeth cannot be told from lips


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
