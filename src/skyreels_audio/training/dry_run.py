"""A rehearsal before a cluster is booked: data, memory and the time of one step, and what the whole recipe takes."""

import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from skyreels_audio.training.checkpoint import MOMENTS
from skyreels_audio.training.distributed import joined
from skyreels_audio.training.recipe import read_recipe
from skyreels_audio.training.trainer import Run, make_task

GIB = 2**30


def dry_run(
    path: Path, device: str | None = None, changes: dict[str, Any] | None = None, price: float | None = None
) -> Iterator[str]:
    """Sentences about a recipe: what is trained, on what, in how much memory, how long, at what cost.

    Two steps are computed and nothing is kept, beside a folder ``dry-run`` of the output, which is removed.

    Args:
        path, device, changes: as `trainer.train`.
        price: of an hour of one process's device.

    Raises:
        InputError: what would end the training would end this.
    """
    recipe = read_recipe(path, changes)
    options, folder = recipe.optimisation, recipe.output / "dry-run"
    with joined(device) as world:
        task = make_task(recipe, world.device)
        run = Run(task, options.model_copy(update={"tracker": "none"}), folder, world)
        everything = list(task.modules.parameters())
        trained = sum(p.numel() for p in everything if p.requires_grad)
        held = sum(p.numel() * p.element_size() for p in everything) / (world.size if options.parallel == "fsdp" else 1)
        states = 4 * trained * (len(MOMENTS) - 1 + 2) / (world.size if options.parallel == "fsdp" else 1)
        yield f"weights: {sum(p.numel() for p in everything):,}, of which {trained:,} are trained"
        yield f"a process keeps {held / GIB:.2f} GiB of weights, {states / GIB:.2f} GiB of gradients, moments, averages"
        seconds = []
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            finished = run.step()
            assert finished is not None, "nothing goes back within two steps"
            loss = float(world.mean(finished[0]))
            seconds.append(time.perf_counter() - began)
        run.metrics.close()
        if world.first:
            shutil.rmtree(folder, ignore_errors=True)
        if world.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(world.device)
        else:
            peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield f"one step: loss {loss:.4g}, {seconds[-1]:.3g} s, peak {peak / GIB:.2f} GiB on {world.device}"
        hours = options.steps * seconds[-1] / 3600
        yield f"the recipe's {options.steps} steps: {hours:.3g} hours on {world.size} processes as fast as these"
        if price is not None:
            yield f"at {price:g} an hour and process: {hours * world.size * price:,.2f}"
