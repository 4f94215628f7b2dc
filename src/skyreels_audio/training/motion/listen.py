"""How far lips part, heard: a linear map from audio features, fitted on speakers whose lips were seen.

Shape letters: A audio token, D width of the features, n value of a curve at 100 Hz, K direction.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from skyreels_audio.models.rope import TOKENS_PER_SECOND
from skyreels_audio.synthetic.visemes import CURVE_RATE, VISEME_CHANNELS

DIRECTIONS = 128  # in which features vary most
NEAR = 8  # tokens before and after that are heard, too
PENALTY = 1e-3  # of the ridge regression, of the variance of a direction
PART, PRESS = VISEME_CHANNELS.index("part"), VISEME_CHANNELS.index("press")
PRESSED = 0.7  # of lips that meet
HEARD = 0.5  # of how far lips part is as it is heard, the rest as phonemes say
_STEP = CURVE_RATE // TOKENS_PER_SECOND


class Listener:
    """Fitted on features [A, D] and viseme curves [n, 9] of the same utterances.

    What phonemes say is the same for everybody who says them; how far lips of strangers were apart in eleven
    films, this followed with r = 0.53, and what phonemes say with 0.44.
    """

    def __init__(self, seen: Sequence[tuple[Tensor, np.ndarray]]) -> None:
        features = np.concatenate([features_AD.float().numpy() for features_AD, _ in seen])
        self.mean_D = features.mean(0)
        variance_K, directions_DK = np.linalg.eigh(np.cov(features.T))
        self.whiten_DK = (directions_DK / np.sqrt(variance_K.clip(min=1e-12)))[:, -DIRECTIONS:]
        size = DIRECTIONS * (2 * NEAR + 1)
        square, product, count = np.zeros((size, size)), np.zeros(size), 0
        for features_AD, curves in seen:
            parted_A = curves[::_STEP, PART]
            around = self._around(features_AD)[: len(parted_A)]
            parted_A = parted_A[: len(around)]
            square += around.T @ around
            product += around.T @ (parted_A - parted_A.mean())
            count += len(around)
        self.map = np.linalg.solve(square + PENALTY * count * np.eye(size), product)

    def __call__(self, features_AD: Tensor, curves: np.ndarray) -> np.ndarray:
        """Curves [n, 9] whose lips part half as is heard, as far as before in the mean; where all rests, they rest."""
        heard_A = self._around(features_AD) @ self.map
        heard_n = np.interp(np.arange(len(curves)) / _STEP, np.arange(len(heard_A)), heard_A)
        moving_n = curves.any(1)
        if not moving_n.any():
            return curves
        said_n, heard = curves[moving_n, PART], heard_n[moving_n]
        heard = said_n.mean() + said_n.std() * (heard - heard.mean()) / max(float(heard.std()), 1e-6)
        apart = 1 - np.clip(curves[moving_n, PRESS] / PRESSED, 0, 1)
        curves = curves.copy()
        curves[moving_n, PART] = np.maximum((1 - HEARD) * said_n + HEARD * heard, 0) * apart
        return curves

    def _around(self, features_AD: Tensor) -> np.ndarray:
        """Features in their own directions, of each token and those near it [A, K · (2 NEAR + 1)]."""
        white_AK = (features_AD.float().numpy() - self.mean_D) @ self.whiten_DK
        near = np.arange(len(white_AK))[:, None] + np.arange(-NEAR, NEAR + 1)
        return white_AK[near.clip(0, len(white_AK) - 1)].reshape(len(white_AK), -1)
