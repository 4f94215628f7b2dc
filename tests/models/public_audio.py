"""Weights and a voice that are the same wherever they are made: the authors' code was recorded on them."""

import math
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parents[1] / "data"


def weight(name: str, shape: list[int]) -> torch.Tensor:
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    if len(shape) > 1:
        values = values / math.sqrt(np.prod(shape[1:]))
    else:
        values = 1 + 0.1 * values if "norm" in name and name.endswith("weight") else 0.1 * values
    return torch.from_numpy(values.astype(np.float32))


def voice() -> np.ndarray:
    samples = int(1.337 * 16000)
    time = np.arange(samples) / 16000
    tone = 0.2 * np.sin(2 * np.pi * (120 + 30 * time) * time) * (1 + np.sin(2 * np.pi * 3 * time))
    wave = (tone + 0.01 * np.random.default_rng(5).normal(size=samples)).astype(np.float32)
    wave[9000:12000] *= 0.01
    return wave
