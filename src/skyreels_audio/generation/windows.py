"""Any length: overlapping windows of one fixed size, fused at every denoising step (the paper's BLF, Algorithm 1).

The paper blends the latents of neighbouring windows after each step. With Euler steps, blending velocities before one
step of the whole timeline is the same thing, and it is right for multistep solvers too (DESIGN §6).
"""

from typing import Literal

import torch
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Velocity

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
    weights = []
    for index, (start, stop) in enumerate(spans):
        fade = torch.ones(stop - start)
        shared = spans[index - 1][1] - start if index else 0
        fade[:shared] = torch.linspace(0, 1, shared) if fusion == "bidirectional" else 0.0
        for (_, earlier_stop), earlier in zip(spans, weights, strict=False):
            if (common := earlier_stop - start) > 0:
                earlier[-common:] *= 1 - fade[:common]
        weights.append(fade)
    return weights


class Windows:
    """A velocity over a timeline of any length, from one that knows windows of a fixed length. One window at a time.

    Args:
        velocity: evaluated on each window with the conditions of that window.
        window: latents per window.
        overlap: latents that neighbours share: at least 2 to fuse, ignored when ``fusion`` is "none".
        fusion: "bidirectional" is BLF; "unidirectional" and "none" are what Figure 7 compares it with.
    """

    def __init__(self, velocity: Velocity, window: int, overlap: int, fusion: Fusion = "bidirectional") -> None:
        assert fusion != "bidirectional" or overlap >= 2, overlap
        self.velocity = velocity
        self.window = window
        self.overlap = 0 if fusion == "none" else overlap
        self.fusion: Fusion = fusion

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        spans = plan_windows(latents_BCTHW.shape[2], self.window, self.overlap)
        if len(spans) == 1:
            return self.velocity(latents_BCTHW, t, conditions)
        fused_BCTHW = torch.zeros_like(latents_BCTHW)
        for (start, stop), weight_T in zip(spans, fusion_weights(spans, self.fusion), strict=True):
            velocity = self.velocity(latents_BCTHW[:, :, start:stop], t, conditions.window(start, stop))
            fused_BCTHW[:, :, start:stop] += weight_T.to(velocity).view(-1, 1, 1) * velocity
        return fused_BCTHW
