"""Mouths as a `Source` of flow training without an autoencoder: block transforms of what a sync expert is trained on.

Legend: F pixel frame, T latent frame, C coefficient, H W pixels, h w blocks, A audio token.
"""

from functools import cached_property

import torch
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.masks import lip_weight
from skyreels_audio.models.rope import FRAMES_PER_LATENT, latent_positions, token_positions
from skyreels_audio.training.batch import Batch, generator_of
from skyreels_audio.training.sync import Example

FRAMES, SIDE, BLOCK, KEPT = 33, 48, 8, 16
LATENTS = (FRAMES - 1) // FRAMES_PER_LATENT + 1
TOKENS = 2 * FRAMES  # of 20 ms
AUDIO_DIM = 26  # the MFCC of two times 10 ms
PATCH = slice(3, 51), slice(12, 60)  # of the expert's picture of 64 × 64: SIDE pixels with the mouth in their middle
LIPS = 15.0, 8.0  # half axes of the ellipse that stands for M_lip, pixels: all faces are framed alike
EDITED = slice(2, 5), slice(1, 5)  # rows and columns of blocks that video editing hides


class Mouths:
    """Clips of a sync expert's training, grey, cut to the mouth.

    Latents are the first coefficients of a Karhunen-Loève transform of blocks of 4 frames × 8 × 8 pixels; frame 0 alone
    is the first, four times.
    """

    fingerprint = "mouths"

    def __init__(self, train: list[Example], test: list[Example]) -> None:
        self.train = [clip for clip in train if len(clip.pictures) >= FRAMES]
        self.test = [clip for clip in test if len(clip.pictures) >= FRAMES]
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        middle = SIDE / 2 - 0.5
        self.lips_HW = (((x - middle) / LIPS[0]).square() + ((y - middle) / LIPS[1]).square() <= 1).float()

    @cached_property
    def transform(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [256], basis [256, C] and scale [C] of blocks, fitted to training clips."""
        some = self.train[:: max(len(self.train) // 64, 1)]
        blocks = torch.cat([_blocks(grey(clip, 0)[None]).flatten(0, 3) for clip in some])
        mean = blocks.mean(0)
        values, vectors = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
        scale = values[-KEPT:].clamp(min=1e-6) ** 0.25  # between whitened and orthonormal
        basis, coefficients = vectors[:, -KEPT:], (blocks - mean) @ vectors[:, -KEPT:] / scale
        return mean, basis, scale * coefficients.std()

    def encode(self, grey_BFHW: Tensor) -> Tensor:
        mean, basis, scale = self.transform
        return (((_blocks(grey_BFHW) - mean) @ basis) / scale).permute(0, 4, 1, 2, 3)

    def decode(self, latents_BCThw: Tensor) -> Tensor:
        """Grey pixels [B, F, H, W], 0 to 1."""
        mean, basis, scale = self.transform
        blocks = (latents_BCThw.permute(0, 2, 3, 4, 1) * scale) @ basis.T + mean
        blocks = blocks.unflatten(-1, (FRAMES_PER_LATENT, BLOCK, BLOCK)).permute(0, 1, 4, 2, 5, 3, 6)
        return blocks.flatten(5, 6).flatten(3, 4).flatten(1, 2)[:, FRAMES_PER_LATENT - 1 :].clamp(0, 1)

    def batch(self, step: int, samples: range) -> Batch:
        parts = []
        for sample in samples:
            draw = torch.rand(2, generator=generator_of(step, sample))
            clip = self.train[int(draw[0] * len(self.train))]
            parts.append((clip, int(draw[1] * (len(clip.pictures) - FRAMES + 1))))
        return self.cut(parts)

    def held_out(self, number: int) -> Batch | None:
        chosen = self.test[16 * number : 16 * (number + 1)]
        return self.cut([(clip, 0) for clip in chosen]) if chosen else None

    def cut(self, parts: list[tuple[Example, int]]) -> Batch:
        """Clips from a frame on."""
        clean = self.encode(torch.stack([grey(clip, start) for clip, start in parts]))
        sound = [torch.from_numpy(clip.coefficients[:, 4 * start : 4 * (start + FRAMES)]) for clip, start in parts]
        known = torch.zeros_like(clean[:, :FRAMES_PER_LATENT])
        known[:, :, 0] = 1
        edited = torch.ones_like(known)
        edited[(..., *EDITED)] = 0
        text = torch.zeros(len(parts), 1, 16)
        conditions = Conditions(
            text_BSD=text,
            null_text_BSD=text,
            audio_BAD=torch.stack(sound).unflatten(2, (TOKENS, 2)).permute(0, 2, 1, 3).flatten(2) / 10,
            audio_positions_A=token_positions(TOKENS).expand(len(parts), -1),
            reference_BCTHW=clean * known[:, :1],
            known_B4THW=known,
            video_positions_T=latent_positions(LATENTS).expand(len(parts), -1),
        )
        lips_THW = lip_weight(self.lips_HW.expand(FRAMES, -1, -1), BLOCK)
        return Batch(clean, conditions, clean * edited[:, :1], edited, lips_THW.expand(len(parts), -1, -1, -1))


def grey(clip: Example, start: int) -> Tensor:
    """The mouth of a clip from a frame on [F, H, W], 0 to 1."""
    frames = torch.from_numpy(clip.pictures[start : start + FRAMES].astype("float32")).mean(-1) / 255
    return frames[(slice(None), *PATCH)]


def _blocks(grey_BFHW: Tensor) -> Tensor:
    """[B, T, h, w, 256]: blocks of four frames, the first frame alone."""
    grey = torch.cat([grey_BFHW[:, :1].expand(-1, FRAMES_PER_LATENT - 1, -1, -1), grey_BFHW], 1)
    grey = grey.unflatten(1, (-1, FRAMES_PER_LATENT)).unflatten(3, (-1, BLOCK)).unflatten(5, (-1, BLOCK))
    return grey.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
