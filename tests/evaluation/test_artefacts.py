import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from skyreels_audio.evaluation.artefacts import (
    chin_change,
    codec_round_trip,
    colour_drift,
    error_over_codec,
    flicker,
    jerks,
    lip_colours,
    mouth_sharpness,
    region_colours,
    seam_step,
    tile_border_ratio,
)

SIZE = 128


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    """Texture that drifts: uint8 [6, 128, 128, 3]."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(SIZE, SIZE + 6, 3)), (2, 2, 0))
    noise = 128 + 40 * noise / noise.std()
    return np.stack([noise[:, k : k + SIZE] for k in range(6)]).clip(0, 255).astype(np.uint8)


def test_motion_in_steps_is_told_from_even_motion():
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(SIZE, SIZE + 40, 3)), (2, 2, 0))
    noise = 128 + 40 * noise / noise.std()
    even = np.stack([noise[:, k : k + SIZE] for k in range(40)])
    stepwise = np.stack([noise[:, k // 4 * 4 :][:, :SIZE] for k in range(40)])
    assert jerks(even, 4) == pytest.approx(1, abs=0.1)
    assert jerks((even + stepwise) / 2, 4) > 2 and jerks(stepwise, 4) > 10
    assert jerks(stepwise, 3) < 2 and np.isnan(jerks(even[:12], 4))


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """Landmarks whose face is 64 pixels high, its lips an ellipse at the middle, its jaw an arc below."""
    p = np.full((68, 2), 64.0)
    p[27], p[33] = (64, 30), (64, 30 + 64 / 3.4)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    p[48:60] = 64 + np.stack([14 * np.cos(angle), 7 * np.sin(angle)], 1)
    p[60:68] = 64 + np.stack([9 * np.cos(angle[::3].repeat(2)), 2 * np.sin(angle[::3].repeat(2))], 1)
    arc = np.linspace(np.pi, 0, 17)
    p[:17] = np.stack([64 + 30 * np.cos(arc), 60 + 25 * np.sin(arc)], 1)
    return np.repeat(p[None], 6, 0)


def blurred(video: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(video.astype(np.float32), (0, sigma, sigma, 0)).astype(np.uint8)


def test_sharpness_falls_with_blur(video, points):
    ratios = [mouth_sharpness(blurred(video, s), points, video, points) for s in (0, 0.7, 1.5, 3)]
    assert ratios[0] == pytest.approx(1, abs=0.01)
    assert ratios == sorted(ratios, reverse=True) and ratios[-1] < 0.5


def test_tiles_show_in_their_own_size_only(video):
    tiles = np.random.default_rng(1).integers(-9, 9, (8, 8))
    squares = (video + np.kron(tiles, np.ones((16, 16)))[None, ..., None]).clip(0, 255).astype(np.uint8)
    assert tile_border_ratio(video, 16) == pytest.approx(1, abs=0.05)
    assert tile_border_ratio(squares, 16) > 1.3
    assert tile_border_ratio(squares, 12) < 1.1
    outside = np.zeros((SIZE, SIZE), bool)
    outside[1:15, 1:15] = True
    assert tile_border_ratio(squares, 8, outside) == pytest.approx(tile_border_ratio(video, 8, outside), abs=0.15)


def test_a_seam_is_what_the_edit_adds_to_the_step(video):
    region = np.zeros((SIZE, SIZE), bool)
    region[40:90, 40:90] = True
    steps = [seam_step(np.where(region[..., None], video + level, video), video, region) for level in (0, 3, 6)]
    assert steps == pytest.approx([0, 3, 6], abs=0.05)
    everywhere = (video.astype(int) + 5).clip(0, 255)
    assert seam_step(everywhere, video, region) < 0.2


def test_flicker_is_not_motion(video):
    steady = np.repeat(video[:1], 6, 0)
    shaken = (steady.astype(int) + np.array([0, 8, 0, 8, 0, 8])[:, None, None, None]).clip(0, 255).astype(np.uint8)
    assert flicker(steady) == 0
    assert flicker(shaken) == pytest.approx(8, abs=0.3)
    where = np.zeros((SIZE, SIZE), bool)
    where[:10] = True
    half = np.where(where[..., None], steady, shaken)
    assert flicker(half, where) == 0 and flicker(half) > 5


def test_lip_colour_is_of_the_lips_alone(video, points):
    red = np.full((6, SIZE, SIZE, 3), 200, np.uint8)
    red[:, 57:72, 49:80] = (160, 60, 60)
    colours = lip_colours(red, points)
    paler = lip_colours(np.where((red == (160, 60, 60)).all(-1)[..., None], np.uint8(110), red), points)
    white = lip_colours(np.where((red == 200).all(-1)[..., None], np.uint8(0), red), points)
    assert colour_drift(paler, colours[0]) > 10
    assert colour_drift(white, colours[0]) < 1e-4


def test_drift_grows_with_the_shift_of_colours(video):
    where = np.ones((SIZE, SIZE), bool)
    reference = region_colours(video, where)[0]
    shifted = [(video * [1, 1 - k, 1]).astype(np.uint8) for k in (0, 0.05, 0.1)]
    drifts = [colour_drift(region_colours(each, where), reference) for each in shifted]
    assert drifts == sorted(drifts) and drifts[0] < 1 < drifts[2]
    assert colour_drift(np.array([[50, 0, 0], [np.nan] * 3, [53, 4, 0]]), np.array([50, 0, 0])) == pytest.approx(2.5)


def test_a_second_chin_is_a_change_below_the_first(points):
    neck = np.full((6, SIZE, SIZE, 3), 150, np.uint8)
    face, second = neck.copy(), neck.copy()
    face[:, :80] = 90  # the face may change
    second[:, 93:] = 110
    assert chin_change(neck, neck, points) == chin_change(face, neck, points) == 0
    assert chin_change(second, neck, points) > 5


def test_fidelity_outside_is_measured_in_round_trips_of_the_codec(video):
    outside = np.ones((SIZE, SIZE), bool)
    outside[40:90, 40:90] = False
    video = np.repeat(video[..., :1], 3, -1)  # a codec halves the resolution of colours, not of greys
    once = codec_round_trip(video, 25, 16)
    assert error_over_codec(once, video, outside, 25) == pytest.approx(1)
    worse = np.where(outside[..., None], once.astype(int) + 10, once).clip(0, 255).astype(np.uint8)
    assert error_over_codec(worse, video, outside, 25) > 2
    edited = np.where(outside[..., None], once, 0).astype(np.uint8)
    assert error_over_codec(edited, video, outside, 25) == pytest.approx(1)
