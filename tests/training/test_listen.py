import numpy as np
import pytest
import torch

from skyreels_audio.synthetic.visemes import VISEME_CHANNELS
from skyreels_audio.training.motion.listen import HEARD, PART, PRESS, Listener

SECONDS, WIDTH = 12, 160


def spoken(seed: int):
    """Features [A, D] of somebody, how far the lips really part [n], and curves whose phonemes say something else."""
    rng = np.random.default_rng(seed)
    lips_A = np.convolve(rng.random(50 * SECONDS + 8), np.ones(9) / 9, "valid") - 0.35
    basis_D = np.random.default_rng(0).normal(size=WIDTH)
    features_AD = lips_A[:, None] * 20 * basis_D + rng.normal(size=(len(lips_A), WIDTH))
    lips_n = np.interp(np.arange(100 * SECONDS) / 2, np.arange(len(lips_A)), lips_A)
    curves = np.zeros((100 * SECONDS, len(VISEME_CHANNELS)), np.float32)
    curves[:, PART] = 0.3 + 0.1 * np.sin(np.arange(len(curves)) / (5 + seed))
    curves[300:500] = 0  # a pause
    curves[700:720, PRESS] = 0.7
    return torch.from_numpy(features_AD).half(), lips_n, curves


@pytest.fixture(scope="module")
def listener() -> Listener:
    seen = []
    for seed in range(4):
        features, lips, curves = spoken(seed)
        seen.append((features, np.column_stack([lips, curves[:, 1:]])))
    return Listener(seen)


def test_lips_part_as_is_heard_and_said(listener):
    features, lips, curves = spoken(7)
    told = listener(features, curves)
    free = curves.any(1) & (curves[:, PRESS] == 0)
    heard = (told - (1 - HEARD) * curves)[free, PART]
    assert np.corrcoef(heard, lips[free])[0, 1] > 0.9
    assert np.corrcoef(told[free, PART], curves[free, PART])[0, 1] > 0.5
    assert told[free, PART].mean() == pytest.approx(curves[free, PART].mean(), rel=0.1)


def test_rest_and_closed_lips_stay(listener):
    features, _, curves = spoken(8)
    told = listener(features, curves)
    assert not told[300:500].any() and not told[700:720, PART].any()
    assert np.array_equal(told[:, 1:], curves[:, 1:])
    assert not listener(features, np.zeros_like(curves)).any()
