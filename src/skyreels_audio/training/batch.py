"""What a step of flow training is made of, wherever it comes from."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions


@dataclass(frozen=True)
class Batch:
    """Some samples of a step: what is to be made, and all that may be known of it; nothing is dropped yet.

    Attributes:
        clean_BCTHW: normalised latents of the videos.
        conditions: of image animation: the first frame is given.
        editing_BCTHW, editing_known_B4THW: instead, the reference and mask of video editing: all but a region; None:
            these samples cannot be edited.
        lips_BTHW: how much of a latent is lips, 0 … 1 (`masks.lip_weight`); None: unknown.
        squares_BF4, mfcc_BCM: the face in pixels (`face_squares`) and the sound (`mfcc`) as a sync expert takes them,
            at 25 frames per second; None: unknown.
    """

    clean_BCTHW: Tensor
    conditions: Conditions
    editing_BCTHW: Tensor | None = None
    editing_known_B4THW: Tensor | None = None
    lips_BTHW: Tensor | None = None
    squares_BF4: Tensor | None = None
    mfcc_BCM: Tensor | None = None


class Source(Protocol):
    """Where batches come from: precomputed shards, or clips made on the fly.

    Attributes:
        fingerprint: of the data: a run that goes on with other data says so.
    """

    fingerprint: str

    def batch(self, step: int, samples: range) -> Batch:
        """Some of a step's samples, by their positions in its whole batch: always the same, whoever asks for them."""
        ...

    def held_out(self, number: int) -> Batch | None:
        """The ``number``-th batch of data that is never trained on; None if there are no more."""
        ...


def generator_of(*numbers: int) -> torch.Generator:
    """A source of random numbers that follows from ``numbers`` (seed, step, sample, …) alone."""
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
