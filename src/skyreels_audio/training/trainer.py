"""One training loop for every recipe: reads downward, stops anywhere, goes on with the same command."""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from skyreels_audio.training.options import Optimisation
from skyreels_audio.training.recipe import AutoencoderRecipe, Recipe, read_recipe
from skyreels_audio.training.rendered.recipe import RenderedDistilRecipe

PART_BYTES = 15 << 20  # a state travels in parts that fit through narrow channels


class Task(Protocol):
    """What is being trained: modules, a loss for step ``n``, and what to show now and then."""

    modules: nn.ModuleDict

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]: ...

    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]: ...

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None: ...


@dataclass
class State:
    """Everything that a run is at one step."""

    step: int
    modules: nn.ModuleDict
    averaged: nn.ModuleDict
    optimizer: torch.optim.AdamW

    def tensors(self) -> dict[str, Tensor]:
        named = {f"model.{k}": v for k, v in self.modules.state_dict().items()}
        named |= {f"ema.{k}": v for k, v in self.averaged.state_dict().items()}
        for index, slot in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in slot.items()}
        return {k: v.detach().cpu().clone().contiguous() for k, v in named.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.modules.load_state_dict(part("model."))
        self.averaged.load_state_dict(part("ema."))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimizer.").items():
            index, name = key.split(".", 1)
            slots.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def learning_rate(step: int, options: Optimisation) -> float:
    """Linear warm-up, then a cosine to ``final_learning_rate`` of the peak at the last step."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(options.steps - options.warmup_steps, 1)
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
    return options.learning_rate * (options.final_learning_rate + (1 - options.final_learning_rate) * cosine)


def save_state(state: State, folder: Path) -> None:
    """Write the state in parts under a temporary name, rename it, and only then remove the older ones."""
    partial, final = folder / "state.partial", folder / f"state-{state.step:07d}"
    if final.exists():  # a step has one state
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    part: dict[str, Tensor] = {}
    count = size = 0
    for name, tensor in state.tensors().items():
        if part and size + tensor.nbytes > PART_BYTES:
            save_file(part, partial / f"part-{count:02d}.safetensors")
            part, count, size = {}, count + 1, 0
        part[name] = tensor
        size += tensor.nbytes
    save_file(part, partial / f"part-{count:02d}.safetensors")
    partial.rename(final)
    for old in folder.glob("state-*"):
        if old != final:
            shutil.rmtree(old)


def load_state(state: State, folder: Path) -> None:
    """Continue from the newest complete state under ``folder``, if there is one."""
    newest = max(folder.glob("state-*"), default=None)
    if newest is None:
        return
    tensors = {k: v for part in sorted(newest.glob("part-*.safetensors")) for k, v in load_file(part).items()}
    state.restore(tensors)
    state.step = int(newest.name.split("-")[1])


@torch.no_grad()
def update_average(averaged: Iterable[Tensor], current: Iterable[Tensor], step: int, decay: float) -> None:
    """Exponential moving average whose memory grows with the run, so that it forgets the initialisation at once."""
    decay = min(decay, (1 + step) / (10 + step))
    for average, value in zip(averaged, current, strict=True):
        average.lerp_(value, 1 - decay)


def fit(
    task: Task,
    options: Optimisation,
    folder: Path,
    minutes: float | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> State:
    """Train ``task`` until ``options.steps``, or for ``minutes``; resumes from what ``folder`` holds."""
    import copy

    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir(parents=True, exist_ok=True)
    modules = task.modules.train()
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, options.learning_rate, betas=options.betas, weight_decay=options.weight_decay
    )
    state = State(0, modules, copy.deepcopy(modules).eval().requires_grad_(False), optimizer)
    load_state(state, folder)
    board = SummaryWriter(str(folder / "tensorboard"), purge_step=state.step)
    deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    device = parameters[0].device.type

    def report(values: dict[str, float]) -> None:
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": state.step, **{k: round(v, 5) for k, v in values.items()}}) + "\n")
        for name, value in values.items():
            board.add_scalar(name, value, state.step)

    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("train", total=options.steps, completed=state.step, note="")
        began, seen = time.monotonic(), 0
        while state.step < options.steps and time.monotonic() < deadline:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(state.step, options)
            with torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16"):
                loss, values = task.loss(state.step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, options.clip_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(f"the gradient is not finite at step {state.step}; lower the learning rate")
            optimizer.step()
            update_average(state.averaged.parameters(), modules.parameters(), state.step, options.ema_decay)
            state.step += 1
            seen += 1
            if on_step is not None:
                on_step(state.step, float(loss.detach()))
            if state.step % options.log_every == 0:
                seconds = (time.monotonic() - began) / seen
                report(
                    {"loss": float(loss.detach()), "gradient_norm": float(norm), "seconds_per_step": seconds, **values}
                )
            if state.step % options.sample_every == 0 or state.step == options.steps:
                with torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16"):
                    report(task.evaluate(state.averaged, state.step))
            if state.step % options.save_every == 0 or state.step == options.steps:
                save_state(state, folder)
            progress.update(bar, completed=state.step, note=f"loss {float(loss.detach()):.4f}")
    save_state(state, folder)
    board.close()
    return state


def train(recipe_path: Path, minutes: float | None = None, device: str | None = None) -> Path:
    """Run a recipe; the same command resumes. Returns the folder of the exported weights."""
    recipe = read_recipe(recipe_path)
    torch.manual_seed(recipe.seed)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    task = make_task(recipe, place)
    state = fit(task, recipe.optimisation, recipe.output, minutes)
    exported = recipe.output / "export"
    task.export(state.averaged, exported)
    return exported


def make_task(recipe: Recipe, device: torch.device) -> Task:
    if isinstance(recipe, AutoencoderRecipe):
        from skyreels_audio.training.autoencoder import AutoencoderTask

        return AutoencoderTask(recipe, device)
    if isinstance(recipe, RenderedDistilRecipe):
        from skyreels_audio.training.rendered.distil import DistilTask

        return DistilTask(recipe, device)
    from skyreels_audio.training.rendered.flow import FlowTask

    return FlowTask(recipe, device)
