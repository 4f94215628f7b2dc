import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skyreels_audio.evaluation.frechet import Moments, frechet_distance


def samples(seed: int, count: int, width: int = 12, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + shift).astype(np.float32)


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    s, t = np.cov(x.astype(np.float64), rowvar=False), np.cov(y.astype(np.float64), rowvar=False)
    gap = x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)
    return float(gap @ gap + np.trace(s + t) - 2 * np.trace(np.real(scipy.linalg.sqrtm(s @ t))))


@pytest.mark.parametrize("shift", [0.0, 0.5, 20.0])
def test_distance_is_the_definition_to_a_millionth(shift):
    x, y = samples(0, 200), samples(1, 300, shift=shift)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(by_definition(x, y), rel=1e-6)


def test_distance_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    x, y = samples(2, 100).astype(np.float64), samples(3, 150).astype(np.float64)
    means, covariances = zip(
        *((torch.tensor(a.mean(0)), torch.tensor(np.cov(a, rowvar=False))) for a in (x, y)), strict=True
    )
    theirs = float(fid._compute_fid(means[0], covariances[0], means[1], covariances[1]))
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(theirs, rel=1e-6)


def test_fewer_samples_than_features():
    x, y = samples(4, 7, width=40), samples(5, 9, width=40)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(by_definition(x, y), rel=1e-4)
    assert frechet_distance(Moments.of(x), Moments.of(x)) == pytest.approx(0, abs=1e-6 * np.trace(np.cov(x.T)))


@settings(deadline=None, max_examples=20)
@given(parts=st.lists(st.integers(1, 30), min_size=2, max_size=6), offset=st.floats(-1e3, 1e3))
def test_moments_of_parts_add_up(parts, offset):
    x = samples(6, sum(parts)).astype(np.float64) + offset
    pieces = np.split(x, np.cumsum(parts)[:-1])
    whole = Moments.of(pieces[0])
    for piece in pieces[1:]:
        whole = whole + Moments.of(piece)
    np.testing.assert_allclose(whole.mean_D, x.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.covariance_DD, np.cov(x, rowvar=False), rtol=1e-6, atol=1e-7)


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="two samples"):
        frechet_distance(Moments.of(np.ones((1, 3))), Moments.of(np.ones((5, 3))))
