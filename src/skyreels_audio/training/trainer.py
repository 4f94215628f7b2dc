"""One training loop for every recipe: reads downward, stops anywhere, goes on with the same command."""

import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from skyreels_audio.media import InputError
from skyreels_audio.training.checkpoint import NORMS, State, load_state, save_state
from skyreels_audio.training.distributed import World, joined, spread, whole, without_sync
from skyreels_audio.training.metrics import Metrics, open_metrics
from skyreels_audio.training.motion.recipe import (
    MotionRecipe,
    PortraitAutoencoderRecipe,
    PortraitRecipe,
    SpeechMotionRecipe,
)
from skyreels_audio.training.options import Optimisation
from skyreels_audio.training.recipe import FlowRecipe, Recipe, SyncRecipe, read_recipe

MOST_RETURNS = 3
"""How often a run goes back to the same state before it gives up."""

OnStep = Callable[[int, float], None]


class Task(Protocol):
    """What is being trained: modules, a loss for step ``n``, and what to show now and then.

    Everything random in ``loss`` follows from its step (torch's global generator is seeded by it): a run that goes on
    is the run that was never stopped.
    """

    modules: nn.ModuleDict

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]: ...

    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]: ...

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None: ...


@runtime_checkable
class DivisibleTask(Protocol):
    """A task whose batch can be shared by processes, or computed in parts: the loss of some of a step's samples.

    A sample is the same whoever computes it, so that the loss does not depend on how many share the work. Modules are
    called, never reached into, since FSDP and DDP act when they are called.
    """

    def part_of_loss(self, step: int, samples: range) -> tuple[Tensor, dict[str, float]]: ...


def learning_rate(step: int, options: Optimisation) -> float:
    """Linear warm-up, then constant, or a cosine to ``final_learning_rate`` of the peak at the last step."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    if options.schedule == "constant":
        return options.learning_rate
    progress = (step - options.warmup_steps) / max(options.steps - options.warmup_steps, 1)
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
    return options.learning_rate * (options.final_learning_rate + (1 - options.final_learning_rate) * cosine)


class Run:
    """One training at one step: forward, backward, update; and back to the last state when that goes wrong."""

    def __init__(self, task: Task, options: Optimisation, folder: Path, world: World) -> None:
        self.task, self.options, self.folder, self.world = task, options, folder, world
        if (world.size > 1 or options.accumulation > 1) and not isinstance(task, DivisibleTask):
            raise InputError("This task computes its batch in one piece: one process, accumulation 1.")
        parts = world.size // options.context_parallel * options.accumulation
        if options.batch % parts:
            raise InputError(
                f"A batch of {options.batch} cannot be divided by {world.size // options.context_parallel} processes × "
                f"accumulation {options.accumulation}."
            )
        task.modules.train()
        spread(task.modules, world, options.parallel, options.precision == "bfloat16")
        self.parameters = [p for p in task.modules.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.parameters, options.learning_rate, betas=options.betas, weight_decay=options.weight_decay
        )
        self.state = State.fresh(task.modules, optimizer)
        folder.mkdir(parents=True, exist_ok=True)
        load_state(self.state, folder, world)
        self.metrics: Metrics = open_metrics(folder, options, self.state.step, world.first)
        self.bad = self.returns = 0

    def step(self) -> tuple[Tensor, Tensor, dict[str, float]] | None:
        """Finish one step: loss, norm of the gradient, what the task tells; None if it led back to an older state."""
        state, options = self.state, self.options
        torch.manual_seed(state.step + state.jump)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, options)
        loss, values = self.gradients(state.step + state.jump)
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, options.clip_norm))
        fault = self.fault(self.world.mean(loss.detach()), float(norm))
        if fault is None:
            state.optimizer.step()
            state.average(options.ema_decay)
            state.norms = [*state.norms[1 - NORMS :], float(norm)]
            self.bad = 0
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if fault is not None and self.skip(fault):
            return None
        return loss.detach(), norm, values

    def gradients(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Backward passes over this process's share of the batch; the mean of the losses."""
        options, world, kind = self.options, self.world, self.world.device.type
        sharing = options.context_parallel  # neighbours, who compute the same samples
        parts = world.size // sharing * options.accumulation
        total, told = torch.zeros((), device=world.device), {}
        for part in range(options.accumulation):
            with ExitStack() as stack:
                if part < options.accumulation - 1:
                    stack.enter_context(without_sync(self.task.modules))
                if options.activation_offload:
                    stack.enter_context(torch.autograd.graph.save_on_cpu(pin_memory=kind == "cuda"))
                with torch.autocast(kind, torch.bfloat16, enabled=options.precision == "bfloat16"):
                    if parts == 1:
                        loss, told = self.task.loss(step)
                    else:
                        assert isinstance(self.task, DivisibleTask)
                        each, number = options.batch // parts, world.rank // sharing * options.accumulation + part
                        samples = range(number * each, (number + 1) * each)
                        loss, told = self.task.part_of_loss(step, samples)
                # Each of them has the gradient of its tokens: their sum is wanted, and all processes' mean is taken.
                (loss * sharing / options.accumulation).backward()
            total = total + loss.detach() / options.accumulation
        return total, told

    def fault(self, loss: Tensor, norm: float) -> str | None:
        """Why a gradient must not be applied; the same in every process."""
        if not (math.isfinite(float(loss)) and math.isfinite(norm)):
            return f"the loss is {float(loss):.4g}, its gradient {norm:.4g}"
        norms, spike = self.state.norms, self.options.spike
        if spike is not None and len(norms) == NORMS and norm > spike * (usual := statistics.median(norms)):
            return f"the gradient's norm is {norm:.4g}, usually {usual:.4g}"
        return None

    def skip(self, fault: str) -> bool:
        """Leave a batch out; after several in a row go back to the last state and on with the batches after these.

        Returns whether it went back.
        """
        state, options = self.state, self.options
        self.bad += 1
        self.metrics.event(state.step, f"{fault}; the batch was skipped")
        if self.bad < options.bad_steps:
            return False
        reached, before = state.step + state.jump, state.step
        self.returns += 1
        if self.returns > MOST_RETURNS or not load_state(state, self.folder, self.world):
            raise InputError(
                f"{options.bad_steps} batches in a row could not be used by step {before} ({fault}); lower the "
                "learning rate, or look at the data."
            )
        state.jump = reached - state.step
        self.bad = 0
        self.metrics.rewind(state.step)
        self.metrics.event(before, f"{options.bad_steps} batches in a row were skipped; back to step {state.step}")
        return True

    def evaluate(self) -> None:
        half = self.options.precision == "bfloat16"
        with self.state.averaging() as averaged, torch.autocast(self.world.device.type, torch.bfloat16, enabled=half):
            values = self.task.evaluate(averaged, self.state.step)
        self.metrics.report(self.state.step, values)

    def save(self) -> None:
        save_state(self.state, self.folder, self.options.keep, self.world)
        self.returns = 0


def fit(
    task: Task,
    options: Optimisation,
    folder: Path,
    minutes: float | None = None,
    on_step: OnStep | None = None,
    world: World | None = None,
) -> State:
    """Train ``task`` until ``options.steps``, or for ``minutes``; resumes from what ``folder`` holds.

    SIGTERM and SIGINT end it after the step at hand, with its state saved. A gradient that is not finite, or far above
    the usual, is not applied; after ``options.bad_steps`` of them in a row the run goes back to its last state and on
    with the batches that come after the bad ones.

    Raises:
        InputError: nothing of the above helps, or the disk is full; the last state is intact.
    """
    world = world or World(next(task.modules.parameters()).device)
    run = Run(task, options, folder, world)
    state, deadline = run.state, time.monotonic() + 60 * minutes if minutes else math.inf
    began, first = time.monotonic(), state.step
    with asked_to_stop() as asked, progress_bar(options.steps, world.first) as show:
        while state.step < options.steps:
            state.stopped = world.any(bool(asked))
            if state.stopped or world.any(time.monotonic() >= deadline):
                break
            if (finished := run.step()) is None:
                continue
            loss, norm, values = finished
            if on_step is not None:
                on_step(state.step, float(loss))
            if state.step % options.log_every == 0:
                seconds = (time.monotonic() - began) / max(state.step - first, 1)
                mean = float(world.mean(loss))
                told = {"loss": mean, "gradient_norm": float(norm), "seconds_per_step": seconds, **values}
                run.metrics.report(state.step, told)
            if state.step % options.sample_every == 0 or state.step == options.steps:
                run.evaluate()
            if state.step % options.save_every == 0 or state.step == options.steps:
                run.save()
            show(state.step, float(loss))
    run.save()
    run.metrics.close()
    return state


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """A list that is no longer empty once somebody asks this process to end (clusters preempt)."""
    asked: list[int] = []
    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, lambda number, frame: asked.append(number))
    except ValueError:  # not the main thread: whoever owns it owns the signals
        pass
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(steps: int, shown: bool) -> Iterator[Callable[[int, float], None]]:
    columns: list[Any] = [TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, TextColumn("{task.fields[note]}")) if shown else nullcontext() as progress:
        bar = progress.add_task("train", total=steps, note="") if progress else None

        def show(step: int, loss: float) -> None:
            if progress is not None and bar is not None:
                progress.update(bar, completed=step, note=f"loss {loss:.4f}")

        yield show


def train(
    recipe_path: Path, minutes: float | None = None, device: str | None = None, changes: dict[str, Any] | None = None
) -> Path:
    """Run a recipe; the same command resumes. Returns the folder of the exported weights; if stopped, of the run.

    Args:
        recipe_path: the YAML file.
        minutes: stop after so long.
        device: where to compute; None: on a GPU if there is one.
        changes: what differs from the file, by dotted name.
    """
    recipe = read_recipe(recipe_path, changes)
    torch.manual_seed(recipe.seed)
    with joined(device) as world:
        task = make_task(recipe, world.device)
        state = fit(task, recipe.optimisation, recipe.output, minutes, world=world)
        if state.stopped:  # a cluster that preempts waits for a minute, not for an export
            return recipe.output
        exported = recipe.output / "export"
        with state.averaging() as averaged:
            task.export(averaged, exported)
    return exported


def make_task(recipe: Recipe, device: torch.device) -> Task:
    if recipe.optimisation.context_parallel > 1 and not isinstance(recipe, FlowRecipe):
        raise InputError(f"optimisation.context_parallel: there are no tokens to share in `task: {recipe.task}`.")
    if isinstance(recipe, PortraitAutoencoderRecipe):
        from skyreels_audio.training.portrait_autoencoder import PortraitAutoencoderTask

        return PortraitAutoencoderTask(recipe, device)
    if isinstance(recipe, PortraitRecipe):
        from skyreels_audio.training.portrait import PortraitTask

        return PortraitTask(recipe, device)
    if isinstance(recipe, MotionRecipe):
        from skyreels_audio.training.motion.decoder import MotionTask

        return MotionTask(recipe, device)
    if isinstance(recipe, SpeechMotionRecipe):
        from skyreels_audio.training.motion.speech import SpeechMotionTask

        return SpeechMotionTask(recipe, device)
    if isinstance(recipe, SyncRecipe):
        from skyreels_audio.training.sync import SyncTask

        return SyncTask(recipe, device)
    from skyreels_audio.training.flow import FlowTask

    return FlowTask(recipe, device)
