"""The same stages under Ray Data: a pool of actors for every group of stages that needs the same of a machine.

Ray moves sources between actors, holds them back when a later group is slower, and uses all nodes of the cluster and
fractions of their GPUs. What is finished is our own matter: each source's file, by rename. Its own checkpoints are not
used, and since a source is scored in a process below its actor, a video that crashes it never reaches Ray's retries.

An actor that dies is started again where there is room, but what it had in hand is not given to it again: after a node
is lost there may be no room, and a task that waits for its actor would hold up the run for ever. Such a task fails at
once, and its sources are scored in the next pass over what is left.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import groupby

from skyreels_audio.curation.recipe import Recipe
from skyreels_audio.curation.schema import Clip, from_table, to_table
from skyreels_audio.curation.stage import need_packages
from skyreels_audio.curation.storage import Folder, rows_name
from skyreels_audio.curation.worker import Job, Worker, missing

RESTARTS = 4  # of an actor
MOST_BLOCKS = 4096


class Scorer:
    """An actor: one worker process for some of the stages. The last group writes the rows."""

    def __init__(self, recipe: Recipe, only: list[str], out: str, last: bool) -> None:
        self._recipe, self._out, self._last = recipe, Folder(out), last
        self._worker = Worker(self._recipe, frozenset(only))

    def __call__(self, row: dict) -> dict:
        job: Job = pickle.loads(row["job"])
        if _finished(job, self._out, self._recipe):  # Ray runs a task again when its result was lost with a node
            return {"job": b"", "id": job.id}
        rows = tuple(self._worker.score(job))
        if self._last:
            self._out.write_table(rows_name(job.id), to_table(rows))
        return {"job": b"" if self._last else pickle.dumps(Job(job.id, job.url, rows)), "id": job.id}


def run_ray(jobs: list[Job], recipe: Recipe, out: Folder, workers: int) -> Iterator[list[Clip]]:
    """Score on the cluster that Ray is connected to, or on this machine; yields each source's rows once written.

    workers: actors of each group, at most. Needs extra ``[curate]``'s ray; ``RAY_ADDRESS`` names a cluster.
    """
    need_packages("engine", "ray")
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    context = DataContext.get_current()
    context.max_errored_blocks = -1  # a lost block is scored in the next pass
    context.enable_progress_bars = False
    groups = stage_groups(recipe)
    left, before = {job.id: job for job in jobs}, len(jobs) + 1
    while 0 < len(left) < before:  # a pass in which nothing was finished is the last
        before = len(left)
        items = [{"job": pickle.dumps(job), "id": job.id} for job in left.values()]
        data = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS))
        for index, (cpus, gpus, names) in enumerate(groups):
            data = data.map(
                Scorer,  # pyright: ignore[reportArgumentType]  (Ray takes a class whose instances are functions)
                fn_constructor_args=(recipe, names, out.url, index == len(groups) - 1),
                compute=ActorPoolStrategy(min_size=1, max_size=workers),
                num_cpus=cpus,
                num_gpus=gpus or None,
                max_restarts=RESTARTS,
                max_task_retries=0,
            )
        try:
            for row in data.iter_rows():
                if left.pop(row["id"], None) is not None:
                    yield from_table(out.read_table(rows_name(row["id"])))
        except RayError:
            if not ray.is_initialized():
                raise


def stage_groups(recipe: Recipe) -> list[tuple[float, float, list[str]]]:
    """Neighbouring stages that need the same: (cpus, gpus, names). Probe and split go with the first."""
    groups = groupby(recipe.stages.active(), key=lambda stage: (stage.cpus, stage.gpus))
    return [(cpus, gpus, [stage.name for stage in group]) for (cpus, gpus), group in groups]


def _finished(job: Job, out: Folder, recipe: Recipe) -> bool:
    """Has another actor written the source's rows since this run began?"""
    name = rows_name(job.id)
    if not out.fs.exists(f"{out.root}/{name}"):
        return False
    return not any(missing(row, recipe) for row in from_table(out.read_table(name)))
