"""The Fréchet distance of two sets of features, for any feature network (FID, FVD). N sample, D feature."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and scatter of features, which add up: parts of a set may be seen one after the other, or elsewhere."""

    count: int
    mean_D: np.ndarray  # float64
    scatter_DD: np.ndarray  # float64: sum of products of deviations from the mean

    @classmethod
    def of(cls, features_ND: np.ndarray) -> "Moments":
        """Of some samples, at least one."""
        features_ND = np.asarray(features_ND, np.float64)
        mean_D = features_ND.mean(0)
        deviations_ND = features_ND - mean_D
        return cls(len(features_ND), mean_D, deviations_ND.T @ deviations_ND)

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets together. Chan, Golub & LeVeque, 1979."""
        count = self.count + other.count
        gap_D = other.mean_D - self.mean_D
        mean_D = self.mean_D + gap_D * other.count / count
        between_DD = np.outer(gap_D, gap_D) * self.count * other.count / count
        return Moments(count, mean_D, self.scatter_DD + other.scatter_DD + between_DD)

    @property
    def covariance_DD(self) -> np.ndarray:
        """Unbiased. Raises ValueError for a single sample."""
        if self.count < 2:
            raise ValueError("a covariance needs two samples or more")
        return self.scatter_DD / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Of two Gaussians with these moments: |m - n|² + tr(S + T - 2 (S T)^½). Dowson & Landau, 1982; Heusel, 2017.

    The trace of the root is the sum of the singular values of S^½ T^½, which is exact where S and T have no full rank.
    Raises ValueError for sets of fewer than two samples.
    """
    gap_D = a.mean_D - b.mean_D
    covariances = a.covariance_DD, b.covariance_DD
    roots = [_root(covariance_DD) for covariance_DD in covariances]
    shared = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    return float(gap_D @ gap_D + sum(np.trace(covariance_DD) for covariance_DD in covariances) - 2 * shared)


def _root(symmetric_DD: np.ndarray) -> np.ndarray:
    values_D, vectors_DD = np.linalg.eigh(symmetric_DD)
    return (vectors_DD * np.sqrt(values_D.clip(min=0))) @ vectors_DD.T
