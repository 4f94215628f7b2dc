"""How sure a figure is: bootstrap intervals of means, and how far raters agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure over ``count`` clips or answers with its 95 % interval."""

    value: float
    low: float
    high: float
    count: int

    def text(self, digits: int = 2) -> str:
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def mean_estimate(values: Sequence[float] | np.ndarray, seed: int = 0, resamples: int = 2000) -> Estimate | None:
    """Mean of the finite values with its percentile bootstrap interval; None without any."""
    from scipy.stats import bootstrap

    known = np.array([value for value in values if value is not None and np.isfinite(value)], np.float64)
    if not len(known):
        return None
    mean = float(known.mean())
    if len(known) < 2 or np.ptp(known) == 0:
        return Estimate(mean, mean, mean, len(known))
    rng = np.random.default_rng(seed)
    found = bootstrap((known,), np.mean, n_resamples=resamples, confidence_level=LEVEL, method="percentile", rng=rng)
    return Estimate(mean, float(found.confidence_interval.low), float(found.confidence_interval.high), len(known))


def resampled_estimate(
    value: float, statistic: Callable[[np.ndarray], float], count: int, seed: int = 0, resamples: int = 50
) -> Estimate:
    """Of a statistic of a whole set, with the normal interval of its spread over resampled clips.

    For distances of sets: resampling raises them, so their percentiles would not contain the value itself.
    ``statistic`` gets the indices of the ``count`` clips drawn.
    """
    from scipy.stats import norm

    rng = np.random.default_rng(seed)
    spread = np.std([statistic(rng.integers(count, size=count)) for _ in range(resamples)], ddof=1)
    half = float(norm.ppf(0.5 + LEVEL / 2) * spread)
    return Estimate(value, max(value - half, 0.0), value + half, count)


def krippendorff_alpha(ratings: np.ndarray) -> float:
    """Agreement of raters on an interval scale: 1 always, 0 by chance, below it less. Krippendorff, 2011.

    ``ratings`` is float [raters, items], nan where a rater did not answer; items with one answer do not count. nan
    where nothing was answered twice or all answers are the same.
    """
    answered = np.isfinite(ratings)
    ratings, answered = ratings[:, answered.sum(0) > 1], answered[:, answered.sum(0) > 1]
    values, count = ratings[answered], answered.sum(0)
    if not len(values) or np.ptp(values) == 0:
        return float("nan")
    # Mean squared difference of pairs within an item, and of pairs anywhere, by their variances.
    within = sum(2 * n * n * np.nanvar(column) / (n - 1) for column, n in zip(ratings.T, count, strict=True)) / len(
        values
    )
    overall = 2 * len(values) * values.var() / (len(values) - 1)
    return float(1 - within / overall)
