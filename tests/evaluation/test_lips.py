import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyreels_audio.evaluation.lips import (
    CURVES,
    LipRegressor,
    crop,
    curve_agreement,
    lagged_correlations,
    lip_aperture_curve,
    lip_curves,
    lip_regressor,
    mouth_box,
    true_curves,
)

JAW = list(CURVES).index("jaw")


def wander(count: int, seed: int = 0) -> np.ndarray:
    return np.convolve(np.random.default_rng(seed).normal(size=count + 4), np.ones(5), "valid")


@given(lag=st.integers(-6, 6), gain=st.floats(0.1, 10), offset=st.floats(-5, 5))
def test_agreement_finds_the_lag_whatever_the_scale(lag, gain, offset):
    true = wander(120)
    found = curve_agreement(gain * np.roll(true, lag) + offset, true, max_lag=8)
    assert found.lag == lag
    assert found.r_at_lag > 0.999 and found.r <= found.r_at_lag


def test_agreement_of_what_has_nothing_in_common():
    assert abs(curve_agreement(wander(2000, 1), wander(2000, 2)).r) < 0.15
    assert curve_agreement(np.ones(100), wander(100)).r == 0  # a still picture


def test_curves_must_fit():
    with pytest.raises(ValueError, match="equally long"):
        lagged_correlations(np.zeros(50), np.zeros(40), 4)


def test_the_mouth_box_moves_and_grows_with_the_face():
    points = np.random.default_rng(0).uniform(0, 100, (68, 2)).astype(np.float32)
    np.testing.assert_allclose(mouth_box(2 * points + 30), 2 * mouth_box(points) + 30, rtol=1e-4)


def test_a_crop_past_the_edge_repeats_it():
    frames = np.arange(2 * 40 * 40 * 3).reshape(2, 40, 40, 3).astype(np.uint8)
    frames[:, 0] = 7
    assert (crop(frames, np.array([0, -30, 30, 0]))[:, :60] == 7).all()


def test_the_regressor_is_small():
    assert sum(p.numel() for p in LipRegressor().parameters()) < 1e6
    assert not lip_regressor().training


@pytest.fixture(scope="module")
def performance():
    """Two seconds of a person nobody has seen: frames, landmarks at rest, true curves."""
    pytest.importorskip("moderngl")
    from skyreels_audio.evaluation.held_out import portrait, true_video
    from skyreels_audio.evaluation.subjects import drawn
    from skyreels_audio.synthetic.motion import Motion
    from skyreels_audio.synthetic.render import Renderer
    from skyreels_audio.synthetic.rig import ACTIONS

    weights = np.zeros((50, len(ACTIONS)), np.float32)
    weights[:, ACTIONS.index("jawOpen")] = 0.25 - 0.25 * np.cos(np.arange(50) / 3)
    weights[:, ACTIONS.index("mouthPucker")] = 0.3 - 0.3 * np.cos(np.arange(50) / 7)
    renderer, subject = Renderer(256), drawn("test", 3)[0]
    still = np.zeros((50, 3), np.float32)
    shown, curves = true_video(renderer, subject, Motion(weights, still, still, still[:, :2]))
    return shown.frames, portrait(renderer, subject)[1], curves


def test_lips_are_read_from_a_rendered_face(performance):
    frames, landmarks, true = performance
    read = lip_curves(frames, landmarks)
    assert read.shape == true.shape == (50, len(CURVES))
    assert curve_agreement(read[:, JAW], true[:, JAW]).r > 0.8
    assert curve_agreement(read[:, JAW], true[:, JAW]).lag == 0


def test_the_face_is_found_without_being_told_where(performance):
    frames, landmarks, true = performance
    assert curve_agreement(lip_curves(frames)[:, JAW], true[:, JAW]).r > 0.8


def test_aperture_follows_the_jaw(performance):
    frames, _, true = performance
    assert curve_agreement(lip_aperture_curve(frames[:25]), true[:25, JAW], max_lag=4).r > 0.8


def test_no_face_no_lips():
    with pytest.raises(ValueError, match="no face"):
        lip_curves(np.zeros((2, 64, 64, 3), np.uint8))


def test_true_curves_are_columns_of_the_motion():
    from skyreels_audio.synthetic.rig import ACTIONS

    weights = np.random.default_rng(0).random((4, len(ACTIONS))).astype(np.float32)
    assert (true_curves(weights)[:, JAW] == weights[:, ACTIONS.index("jawOpen")]).all()
