"""Any length: overlapping windows of one fixed size, fused at every denoising step (the paper's BLF, Algorithm 1).

The paper blends the latents of neighbouring windows after each step. With Euler steps, blending velocities before one
step of the whole timeline is the same thing, and it is right for multistep solvers too (DESIGN §6).
"""

from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

import torch
from torch import Tensor

Fusion = Literal["bidirectional", "unidirectional", "none"]


def plan_windows(length: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Spans (start, stop) of equal windows that cover [0, length), each overlapping the one before by ``overlap``.

    The last is shifted back to end at ``length``, so it overlaps by more. One span if the timeline fits in a window.
    """
    assert 0 <= overlap < window, (overlap, window)
    if length <= window:
        return [(0, length)]
    starts = [*range(0, length - window, window - overlap), length - window]
    return [(start, start + window) for start in starts]


def fusion_weights(spans: list[tuple[int, int]], fusion: Fusion) -> list[Tensor]:
    """Weight of every latent of every window [window]; at each latent of the timeline the weights sum to 1.

    A later window fades in over what it shares with the earlier ones, linearly from 0 (Algorithm 1: w_i = (i-1)/(o-1)).
    The 0 matters: the first latent of a window is pinned to the reference frame. With "unidirectional" or "none" it
    does not fade in: what is shared belongs to the earlier window, which so never learns of the later one.
    """
    weights: list[Tensor] = []
    for index, (start, stop) in enumerate(spans):
        fade = torch.ones(stop - start)
        shared = spans[index - 1][1] - start if index else 0
        fade[:shared] = torch.linspace(0, 1, shared) if fusion == "bidirectional" else 0.0
        before = zip(reversed(spans[:index]), reversed(weights), strict=True)
        for (_, earlier_stop), earlier in takewhile(lambda each: each[0][1] > start, before):  # noqa: B023
            earlier[start - earlier_stop :] *= 1 - fade[: earlier_stop - start]
        weights.append(fade)
    return weights


@dataclass(frozen=True)
class Windows:
    """How a timeline of any length is covered by windows of the length that the model knows.

    Attributes:
        window: latents per window.
        overlap: latents that neighbours share: at least 2 to fuse, ignored when ``fusion`` is "none".
        fusion: "bidirectional" is BLF; "unidirectional" and "none" are what Figure 7 compares it with.
    """

    window: int = 21
    overlap: int = 5
    fusion: Fusion = "bidirectional"

    def over(self, length: int) -> list[tuple[tuple[int, int], Tensor]]:
        """The windows of a timeline: span (start, stop) and weight [stop - start] of each."""
        spans = plan_windows(length, self.window, 0 if self.fusion == "none" else self.overlap)
        return list(zip(spans, fusion_weights(spans, self.fusion), strict=True))
