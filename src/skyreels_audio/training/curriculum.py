"""What chance decides about the samples of a step: the task, what is dropped, the noise (paper, section 2.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.media import InputError
from skyreels_audio.training.batch import Batch, generator_of
from skyreels_audio.training.loss import times
from skyreels_audio.training.recipe import Curriculum, Loss

TASKS = ("image", "editing", "text")
"""Image animation, video editing, video from words."""
CONDITIONS = ("reference", "audio", "text")


@dataclass(frozen=True)
class Draw:
    """By sample: the task (index into `TASKS`), what is dropped, whether the lips alone count, the time, the noise, and
    where (0 … 1) the stretch lies whose lips a sync expert reads."""

    task_B: Tensor
    dropped_B: dict[str, Tensor]
    gated_B: Tensor
    t_B: Tensor
    noise_BCTHW: Tensor
    stretch_B: Tensor

    @classmethod
    def of(
        cls, shape: Sequence[int], curriculum: Curriculum, loss: Loss, seed: int, step: int, samples: range
    ) -> "Draw":
        """What becomes of these samples of a step. A sample's lot does not depend on which others are asked for."""
        lots, noise, stretch = [], [], []
        for sample in samples:
            generator = generator_of(seed, step, sample)
            lots.append(torch.rand(7, generator=generator))
            noise.append(torch.randn(tuple(shape[1:]), generator=generator))
            stretch.append(torch.rand((), generator=generator))
        task, *drops, gate, time, one = torch.stack(lots, dim=1)
        borders = torch.tensor([curriculum.image, curriculum.image + curriculum.editing])
        return cls(
            task_B=torch.bucketize(task, borders, right=True),
            dropped_B={name: u < curriculum.drop for name, u in zip(CONDITIONS, drops, strict=True)},
            gated_B=gate < loss.mask_gate,
            t_B=times(time, one, loss.time_shift, loss.time_one),
            noise_BCTHW=torch.stack(noise),
            stretch_B=torch.stack(stretch),
        )


def conditions_of(batch: Batch, task_B: Tensor, dropped_B: dict[str, Tensor]) -> Conditions:
    """The conditions of each sample's task, without what was dropped.

    Raises:
        InputError: a sample is to be edited, but the data has no masked videos.
    """
    conditions, editing_B = batch.conditions, task_B == TASKS.index("editing")
    if editing_B.any():
        if batch.editing_BCTHW is None or batch.editing_known_B4THW is None:
            raise InputError("The recipe edits videos, but the data has no masked ones; set curriculum.editing to 0.")
        rows = editing_B.view(-1, 1, 1, 1, 1).to(batch.editing_BCTHW.device)
        conditions = replace(
            conditions,
            reference_BCTHW=torch.where(rows, batch.editing_BCTHW, conditions.reference_BCTHW),
            known_B4THW=torch.where(rows, batch.editing_known_B4THW, conditions.known_B4THW),
        )
    nothing_B = dropped_B["reference"] | (task_B == TASKS.index("text"))
    conditions = conditions.drop("reference", rows_B=nothing_B)
    for name in ("audio", "text"):
        conditions = conditions.drop(name, rows_B=dropped_B[name])
    return conditions
