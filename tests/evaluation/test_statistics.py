import numpy as np
import pytest

from skyreels_audio.evaluation.statistics import krippendorff_alpha, mean_estimate, resampled_estimate


def test_intervals_hold_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [mean_estimate(rng.normal(3, 1, 40), seed=k, resamples=300) for k in range(200)]
    inside = [e is not None and e.low <= 3 <= e.high for e in found]
    assert 0.88 < np.mean(inside) < 0.99


def test_what_is_not_known_does_not_count():
    found = mean_estimate([1.0, float("nan"), 3.0, float("inf")])
    assert found is not None and (found.value, found.count) == (2, 2)
    assert mean_estimate([float("nan")]) is None
    assert mean_estimate([2.0, 2.0]) == mean_estimate([2.0, 2.0, float("nan")])


def test_the_interval_of_a_set_statistic_is_around_it():
    values = np.random.default_rng(1).normal(size=100)
    found = resampled_estimate(5.0, lambda chosen: 5 + values[chosen].mean(), len(values), resamples=200)
    assert found.low < 5 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.2)


def test_agreement_of_raters():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 60).astype(float)
    same = np.stack([truth] * 4)
    chance = rng.integers(0, 3, (4, 60)).astype(float)
    noisy = np.where(rng.random((4, 60)) < 0.3, chance, truth)
    assert krippendorff_alpha(same) == pytest.approx(1)
    assert abs(krippendorff_alpha(chance)) < 0.15
    assert 0.3 < krippendorff_alpha(noisy) < 0.95
    assert np.isnan(krippendorff_alpha(np.array([[1.0, np.nan], [np.nan, 2.0]])))


def test_agreement_of_the_textbook_example():
    """Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011: interval alpha of example C is 0.849."""
    nan = np.nan
    ratings = np.array([
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ])  # fmt: skip
    assert krippendorff_alpha(ratings) == pytest.approx(0.849, abs=5e-4)
