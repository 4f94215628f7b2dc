"""The denoising loop: any model, any diffusers scheduler, stopped and resumed at any step."""

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Guidance
from skyreels_audio.generation.step import Executor, plan_step
from skyreels_audio.generation.windows import Windows
from skyreels_audio.media.files import replacing, writing

SLICE = 256
"""Latent frames (41 s at 25 frames per second) that a solver steps at once."""

VIDEO = frozenset({"video"})


@torch.no_grad()
def sample(
    execute: Executor,
    scheduler: Any,
    latents_BCTHW: Tensor,
    conditions: Conditions,
    guidance: Guidance,
    windows: Windows,
    hybrid_steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_step_end: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    resume: Path | None = None,
    options: str = "",
) -> Tensor:
    """Integrate dz/dsigma = velocity from noise to clean latents over ``scheduler.timesteps`` (already set).

    Args:
        execute: computes the velocity that a step's plan describes.
        scheduler: any diffusers flow-matching scheduler.
        latents_BCTHW: noise, float32; becomes the result in place.
        conditions: of the whole timeline.
        guidance, windows: what is evaluated at each step.
        hybrid_steps: eq. 4: the first N steps see the whole video, later ones only its first frame; None: all see it.
        progress: called with (finished steps, all steps), also before the first.
        on_step_end: given (step, t, latents) returns the latents to go on with.
        resume: file that keeps the state after each finished step. If it exists, the run goes on from there, to the
            same result bit for bit. It stays: whoever has stored the video deletes it.
        options: what else determines the velocity, so that ``resume`` notices a change of it.

    Raises:
        ValueError: ``resume`` holds the state of other inputs.
    """
    timesteps, solver = scheduler.timesteps, SlicedSolver(scheduler, latents_BCTHW.shape[2])
    steps, report = len(timesteps), progress or (lambda done, total: None)
    state = None if resume is None else State(resume, fingerprint(latents_BCTHW, conditions, timesteps, options))
    finished = state.load(latents_BCTHW, solver) if state else 0
    for step in range(finished, steps):
        report(step, steps)
        t = timesteps[step]
        branches = guidance.branches(step / max(steps - 1, 1), conditions)
        plan = plan_step(windows, branches, VIDEO if hybrid_steps is not None and step >= hybrid_steps else frozenset())
        velocity_BCTHW = execute(plan, latents_BCTHW, t, conditions)
        solver.step(velocity_BCTHW, t, latents_BCTHW)
        del velocity_BCTHW  # before the next one is made
        if on_step_end:
            latents_BCTHW.copy_(on_step_end(step, t, latents_BCTHW))
        if state:
            state.save(step + 1, latents_BCTHW, solver)
    report(steps, steps)
    return latents_BCTHW


def set_timesteps(
    scheduler: Any, steps: int, device: torch.device | str, spacing: Literal["trailing", "linspace"] = "trailing"
) -> Tensor:
    """Prepare a scheduler for so many steps; returns its timesteps.

    Euler's are evenly spaced before the shift, from sigma 1 to 1 / steps as in Wan ("trailing"), or to 1 / 1000 as in
    the MultiTalk family ("linspace"). Neither is diffusers' default, which shifts the least sigma twice. Other
    schedulers have rules of their own.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        last = 1 / steps if spacing == "trailing" else 1 / scheduler.config["num_train_timesteps"]
        scheduler.set_timesteps(sigmas=np.linspace(1, last, steps).tolist(), device=device)
    else:
        scheduler.set_timesteps(steps, device=device)
    return torch.as_tensor(scheduler.timesteps)


class SlicedSolver:
    """A scheduler that steps a timeline in slices, each with a copy of its own and its history.

    A solver works per element, so this changes nothing but the size of its temporaries: of a long timeline, memory
    holds the latents and the velocity.
    """

    def __init__(self, scheduler: Any, length: int) -> None:
        self.slices = [slice(start, start + SLICE) for start in range(0, length, SLICE)]
        self.solvers = [copy.deepcopy(scheduler) for _ in self.slices]

    def step(self, velocity_BCTHW: Tensor, t: Tensor, latents_BCTHW: Tensor) -> None:
        """One step of the solver, in place."""
        for part, solver in zip(self.slices, self.solvers, strict=True):
            before = latents_BCTHW[:, :, part].clone()  # solvers may keep it
            latents_BCTHW[:, :, part] = solver.step(velocity_BCTHW[:, :, part], t, before).prev_sample

    @property
    def histories(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in vars(solver).items() if k != "_internal_dict"} for solver in self.solvers]

    def restore(self, histories: list[dict[str, Any]]) -> None:
        for solver, history in zip(self.solvers, histories, strict=True):
            vars(solver).update(history)


class State:
    """A run in a file: the latents and the solver's history after so many steps."""

    def __init__(self, path: Path, inputs: str) -> None:
        self.path = path
        self.inputs = inputs

    def save(self, finished: int, latents_BCTHW: Tensor, solver: SlicedSolver) -> None:
        """Write so that a kill leaves the old state or the new one. Of several processes the first writes."""
        if dist.is_initialized() and dist.get_rank():
            return
        state = {"inputs": self.inputs, "finished": finished, "latents": latents_BCTHW, "histories": solver.histories}
        with writing(self.path), replacing(self.path) as partial:
            try:
                torch.save(state, partial)
            except RuntimeError as error:  # torch's word for a full disc
                raise OSError(str(error).splitlines()[0]) from error

    def load(self, latents_BCTHW: Tensor, solver: SlicedSolver) -> int:
        """Restore latents and solver in place; returns how many steps are finished, 0 if there is no file."""
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, map_location=latents_BCTHW.device, weights_only=True)
            inputs, finished = state["inputs"], int(state["finished"])
            latents, histories = state["latents"], list(state["histories"])
        except Exception as error:  # of a file that may hold anything
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise ValueError(
                f"{self.path} is not a state to resume from ({reason}); delete it to start anew."
            ) from None
        if inputs != self.inputs:
            raise ValueError(
                f"{self.path} belongs to other inputs, options or weights; give those, or delete it to start anew."
            )
        latents_BCTHW.copy_(latents)
        solver.restore(histories)
        return finished


def weights_hash(*modules: torch.nn.Module) -> str:
    """Hash of all parameters as they are now: adapters, precision and quantisation included."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.named_parameters():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            if value.device.type != "meta":  # offloaded to where it cannot be read without moving it
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(latents_BCTHW: Tensor, conditions: Conditions, timesteps: Tensor, options: str) -> str:
    """Hash of what determines a run besides the weights: noise, timesteps, conditions, options."""
    digest = hashlib.sha256(options.encode())
    for name, value in {"noise": latents_BCTHW, "timesteps": timesteps, **vars(conditions)}.items():
        digest.update(f"{name} {getattr(value, 'shape', value)}".encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
