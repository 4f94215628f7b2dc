"""All velocities that one step needs, known before any of them is computed, so that they can be batched or spread.

Guidance and windows decide what to evaluate from the time and the conditions, never from a velocity. So one pass over
them with zeros for velocities records the calls of a step; a second pass reads the results.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Velocity


@dataclass(frozen=True)
class Call:
    """The arguments of one velocity: one window and branch."""

    latents_BCTHW: Tensor
    t: Tensor
    conditions: Conditions


Compose = Callable[[Velocity], Velocity]
"""Puts guidance, windows and the like around a velocity."""

Evaluate = Callable[[list[Call]], Iterable[Tensor]]
"""Evaluates calls; the velocities come in the order of the calls, each perhaps not made before it is asked for."""


class Together:
    """The velocity ``compose(velocity)`` whose calls of ``velocity`` are evaluated together, once per step.

    Args:
        compose: makes the calls.
        evaluate: `Batched`, or `parallel.Spread`.
    """

    def __init__(self, compose: Compose, evaluate: Evaluate) -> None:
        self.compose = compose
        self.evaluate = evaluate

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        calls: list[Call] = []

        def record(latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
            calls.append(Call(latents_BCTHW, t, conditions))
            return torch.zeros_like(latents_BCTHW)

        self.compose(record)(latents_BCTHW, t, conditions)
        velocities = iter(self.evaluate(calls))
        return self.compose(lambda latents_BCTHW, t, conditions: next(velocities))(latents_BCTHW, t, conditions)


class Batched:
    """Evaluates neighbouring calls of equal shapes as one batch: pays where one call does not fill the device.

    Args:
        velocity: evaluates a batch.
        most: calls per batch; memory for activations grows with it.
    """

    def __init__(self, velocity: Velocity, most: int) -> None:
        self.velocity = velocity
        self.most = most

    def __call__(self, calls: list[Call]) -> Iterator[Tensor]:
        for _, alike in groupby(calls, key=lambda call: shapes(call.conditions)):
            group = list(alike)
            for start in range(0, len(group), self.most):
                batch = group[start : start + self.most]
                latents_BCTHW = torch.cat([call.latents_BCTHW for call in batch])
                joined = join([call.conditions for call in batch])
                yield from self.velocity(latents_BCTHW, batch[0].t, joined).chunk(len(batch))


def shapes(conditions: Conditions) -> tuple[tuple[int, ...] | None, ...]:
    """Shapes of what the transformer reads."""
    return tuple(
        None if x is None else tuple(x.shape)
        for x in (conditions.text_BSD, conditions.audio_BAD, conditions.known_B4THW, conditions.image_BND)
    )


def join(conditions: list[Conditions]) -> Conditions:
    """Conditions of equal shapes as one batch; its positions are per sample, its key tells which these are."""
    if len(conditions) == 1:
        return conditions[0]

    def cat(name: str) -> Tensor | None:
        parts = [getattr(each, name) for each in conditions]
        if parts[0] is None:
            return None
        rows = conditions[0].text_BSD.shape[0]
        positions = name in ("audio_positions_A", "video_positions_T")
        return torch.cat([part.expand(rows, -1) if positions else part for part in parts])

    joined = {name: cat(name) for name in vars(conditions[0]) if name.endswith(("D", "HW", "_A", "_positions_T"))}
    key = tuple(part for each in conditions for part in (*each.key, "|"))
    return replace(conditions[0], **joined, voice_T=None, key=key)
