"""A denoising step as a value, and what computes it.

Guidance (eq. 3) and the fusion of windows (Algorithm 1) are linear in the velocities, so a step is a list of
evaluations of the transformer and a weight for each. Planning knows nothing of devices, executing nothing of guidance.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions, stack
from skyreels_audio.generation.windows import Windows

BATCH_TOKENS = 1024
"""Evaluations are batched up to so many tokens; larger ones fill a processor by themselves."""


class Velocity(Protocol):
    """The model's interface, and that of all that wraps it (step caches, kept keys and values)."""

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions, /) -> Tensor:
        """dz/dsigma at timestep ``t`` in [0, 1000] (0-dim), shaped as the latents."""
        ...


def transformer_velocity(transformer: Any, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
    """The transformer's velocity of [noise, mask, reference] in channels, in the order of Wan; training calls it too.

    ``t`` is one timestep, or one per sample [B].
    """
    return transformer(
        hidden_states=torch.cat([latents_BCTHW, conditions.known_B4THW, conditions.reference_BCTHW], dim=1),
        timestep=t.expand(latents_BCTHW.shape[0]).to(latents_BCTHW.device),
        encoder_hidden_states=conditions.text_BSD,
        encoder_hidden_states_image=conditions.image_BND,
        audio_hidden_states=conditions.audio_BAD,
        audio_positions=conditions.audio_positions_A,
        video_positions=conditions.video_positions_T,
        return_dict=False,
    )[0].to(latents_BCTHW.dtype)


class TransformerVelocity:
    """The transformer as a ``Velocity``, without gradients."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    @torch.no_grad()
    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        return transformer_velocity(self.transformer, latents_BCTHW, t, conditions)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The transformer on one span of the timeline with some conditions dropped, and what its velocity weighs there.

    Attributes:
        span: latents (start, stop).
        drops: see ``Conditions.drop``.
        weight_T: of every latent of the span: fusion × guidance.
    """

    span: tuple[int, int]
    drops: frozenset[str]
    weight_T: Tensor

    def inputs(self, latents_BCTHW: Tensor, conditions: Conditions) -> tuple[Tensor, Conditions]:
        """What the transformer is given, from latents and conditions of the timeline."""
        start, stop = self.span
        if stop - start < latents_BCTHW.shape[2]:  # a timeline of one window is seen whole
            latents_BCTHW, conditions = latents_BCTHW[:, :, start:stop], conditions.window(start, stop)
        return latents_BCTHW, conditions.drop(*self.drops)


def plan_step(
    windows: Windows, branches: Mapping[frozenset[str], Tensor], without: frozenset[str] = frozenset()
) -> list[Evaluation]:
    """All that one step evaluates: every window with every branch of guidance that weighs anything in it.

    Args:
        windows: of the timeline.
        branches: of guidance, weights [T] by what is dropped (``Guidance.branches``).
        without: what is dropped in all of them: in later steps of hybrid inference (eq. 4) "video".
    """
    length = len(next(iter(branches.values())))
    return [
        Evaluation((start, stop), drops | without, fade_T * weight_T[start:stop])
        for (start, stop), fade_T in windows.over(length)
        for drops, weight_T in branches.items()
        if weight_T[start:stop].any()
    ]


class Executor(Protocol):
    """Computes a step: serially, in batches, or spread over ranks."""

    def __call__(self, plan: list[Evaluation], latents_BCTHW: Tensor, t: Tensor, conditions: Conditions, /) -> Tensor:
        """The velocity of the whole timeline: the weighted sum of what ``plan`` evaluates."""
        ...


class Batched:
    """One evaluation after the other, neighbours of equal shapes in batches where one does not fill the device.

    Args:
        velocity: evaluates a batch.
        cells: latent cells (T · H · W) that a batch may hold: memory for activations grows with it. 0 batches nothing.
    """

    def __init__(self, velocity: Velocity, cells: int = 0) -> None:
        self.velocity = velocity
        self.cells = cells

    def __call__(self, plan: list[Evaluation], latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        timeline_BCTHW = torch.zeros_like(latents_BCTHW)
        for batch in self.batches(plan, latents_BCTHW, conditions):
            noisy_BCTHW = torch.cat([noisy for _, noisy, _ in batch])
            velocity_BCTHW = self.velocity(noisy_BCTHW, t, stack([given for _, _, given in batch]))
            for (evaluation, _, _), part_BCTHW in zip(batch, velocity_BCTHW.chunk(len(batch)), strict=True):
                weight_T11 = evaluation.weight_T.to(part_BCTHW).view(-1, 1, 1)
                timeline_BCTHW[:, :, slice(*evaluation.span)] += weight_T11 * part_BCTHW
        return timeline_BCTHW

    def batches(
        self, plan: list[Evaluation], latents_BCTHW: Tensor, conditions: Conditions
    ) -> Iterator[list[tuple[Evaluation, Tensor, Conditions]]]:
        """Evaluations with their latents and conditions, made as they are asked for."""
        batch: list[tuple[Evaluation, Tensor, Conditions]] = []
        for evaluation in plan:
            noisy_BCTHW, given = evaluation.inputs(latents_BCTHW, conditions)
            most = self.cells // noisy_BCTHW[0, 0].numel()
            if batch and (len(batch) >= most or _shapes(given) != _shapes(batch[-1][2])):
                yield batch
                batch = []
            batch.append((evaluation, noisy_BCTHW, given))
        if batch:
            yield batch


class Distributed:
    """Every evaluation on one rank of a group, and the weighted timelines of all ranks added.

    An evaluation stays with its rank for the run, so that a step cache finds its state again.

    Args:
        execute: a rank's own evaluations.
        group: the ranks.
    """

    def __init__(self, execute: Executor, group: dist.ProcessGroup) -> None:
        self.execute = execute
        self.group = group
        self.owners: dict[tuple[tuple[int, int], frozenset[str]], int] = {}

    def __call__(self, plan: list[Evaluation], latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        mine = [evaluation for evaluation in plan if self.owner(evaluation) == self.group.rank()]
        timeline_BCTHW = self.execute(mine, latents_BCTHW, t, conditions)
        dist.all_reduce(timeline_BCTHW, group=self.group)
        return timeline_BCTHW

    def owner(self, evaluation: Evaluation) -> int:
        """The rank of the fewest evaluations, when this one is first seen."""
        key = evaluation.span, evaluation.drops
        if key not in self.owners:
            load = Counter(self.owners.values())
            self.owners[key] = min(range(self.group.size()), key=lambda rank: load[rank])
        return self.owners[key]


def _shapes(conditions: Conditions) -> tuple[tuple[int, ...] | None, ...]:
    """Shapes of what the transformer reads."""
    read = conditions.text_BSD, conditions.audio_BAD, conditions.known_B4THW, conditions.image_BND
    return tuple(None if x is None else tuple(x.shape) for x in read)
