"""What step caches need to know of a model, measured on runs of it: how the blocks' residual changes from step to step.

S step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.acceleration.teacache import Coefficients, modulations, relative_changes, replaced
from skyreels_audio.generation.conditions import Conditions, Part
from skyreels_audio.generation.step import Batched, TransformerVelocity
from skyreels_audio.models.transformer import Embedded, SkyReelsAudioTransformer3DModel


class Change(NamedTuple):
    """How the residual of the blocks changed from the step at timestep ``before`` to that at ``after``."""

    before: float
    after: float
    relative: float
    """mean |r_after - r_before| / mean |r_before|, what TeaCache's polynomial predicts."""
    magnitude: float
    """mean over tokens of |r_after| / |r_before|, what MagCache calls a magnitude ratio."""


class ResidualChanges:
    """A velocity that computes every step and records `changes`, to fit caches by."""

    def __init__(self, transformer: SkyReelsAudioTransformer3DModel) -> None:
        self.transformer = transformer
        self.velocity = TransformerVelocity(transformer)
        self.changes: list[Change] = []
        self.previous: dict[tuple[Part, ...], tuple[float, Tensor]] = {}

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        blocks, key, time = self.transformer.run_blocks, conditions.parts, float(t)

        def run_blocks(embedded: Embedded) -> Tensor:
            hidden_BLM = blocks(embedded)
            residual_BLM = (hidden_BLM - embedded.hidden_BLM).float()
            before, previous_BLM = self.previous.get(key, (time, residual_BLM))
            if before > time:  # else another run has begun
                relative = (residual_BLM - previous_BLM).abs().mean() / previous_BLM.abs().mean()
                magnitude = (residual_BLM.norm(dim=-1) / previous_BLM.norm(dim=-1).clamp(min=1e-8)).mean()
                self.changes.append(Change(before, time, float(relative), float(magnitude)))
            self.previous[key] = time, residual_BLM
            return hidden_BLM

        with replaced(self.transformer, "run_blocks", run_blocks):
            return self.velocity(latents_BCTHW, t, conditions)


def fit_coefficients(
    transformer: SkyReelsAudioTransformer3DModel, changes: Sequence[Change], retain: bool, degree: int = 4
) -> Coefficients:
    """TeaCache's polynomial for a model: change of the residual over change of the signal, by least squares.

    A few runs with different inputs and numbers of steps, recorded by `ResidualChanges`, are enough.

    Raises:
        ValueError: fewer different pairs of timesteps than coefficients.
    """
    pairs = sorted({(change.before, change.after) for change in changes}, reverse=True)
    if len(pairs) <= degree:
        raise ValueError(f"A fit of degree {degree} needs runs of at least {degree + 2} steps.")
    signal = modulations(transformer, torch.tensor(pairs).flatten(), retain).unflatten(0, (-1, 2))
    change_of = {pair: float(relative_changes(rows_2D)) for pair, rows_2D in zip(pairs, signal, strict=True)}
    inputs = [change_of[change.before, change.after] for change in changes]
    return tuple(np.polyfit(inputs, [change.relative for change in changes], degree).tolist())


def record_changes(pipe: Any, examples: Sequence[dict[str, Any]], steps: Sequence[int]) -> list[Change]:
    """What caches are fitted to: each of ``examples`` (what ``pipe`` is called with) runs once with each of ``steps``.

    Nothing is decoded. The numbers of steps are those that the fit is to serve.
    """
    recorder = ResidualChanges(pipe.transformer)
    before, pipe.executor = pipe.executor, Batched(recorder)
    try:
        for example in examples:
            for count in steps:
                recorder.previous.clear()
                pipe(**example, num_inference_steps=count)
    finally:
        pipe.executor = before
    return recorder.changes


def magnitude_ratios(timesteps: Tensor, changes: Sequence[Change]) -> list[float]:
    """MagCache's ratios for the steps of a recorded run: 1 for the first step, then means over windows and branches."""
    times = timesteps.tolist()
    return [1.0] + [
        float(np.mean([change.magnitude for change in changes if (change.before, change.after) == pair]))
        for pair in zip(times, times[1:], strict=False)
    ]
