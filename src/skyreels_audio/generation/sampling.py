"""The denoising loop: any velocity, any diffusers scheduler, stopped and resumed at any step."""

import copy
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Velocity

SLICE = 256
"""Latent frames (41 s at 25 frames per second) that a solver steps at once."""


class TransformerVelocity:
    """The transformer as a velocity: [noise, mask, reference] in channels, in the order of Wan."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    @torch.no_grad()
    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        return self.transformer(
            hidden_states=torch.cat([latents_BCTHW, conditions.known_B4THW, conditions.reference_BCTHW], dim=1),
            timestep=t.expand(latents_BCTHW.shape[0]).to(latents_BCTHW.device),
            encoder_hidden_states=conditions.text_BSD,
            encoder_hidden_states_image=conditions.image_BND,
            audio_hidden_states=conditions.audio_BAD,
            audio_positions=conditions.audio_positions_A,
            video_positions=conditions.video_positions_T,
            return_dict=False,
        )[0].to(latents_BCTHW.dtype)


class Hybrid:
    """Eq. 4: the first N steps see the full video conditions, later ones (``t < switch``) only the first frame."""

    def __init__(self, velocity: Velocity, image_conditions: Conditions, switch: float) -> None:
        self.velocity = velocity
        self.image_conditions = image_conditions
        self.switch = switch

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        return self.velocity(latents_BCTHW, t, conditions if t >= self.switch else self.image_conditions)


def set_timesteps(scheduler: Any, steps: int, device: torch.device | str) -> Tensor:
    """Prepare a scheduler for so many steps; returns its timesteps.

    Euler's are evenly spaced from sigma 1 to 1 / steps before the shift, as in Wan. Left to itself the scheduler would
    spend the last step next to sigma 0, where nothing is left to decide: of three steps a third.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist(), device=device)
    else:
        scheduler.set_timesteps(steps, device=device)
    return torch.as_tensor(scheduler.timesteps)


@torch.no_grad()
def sample(
    velocity: Velocity,
    scheduler: Any,
    latents_BCTHW: Tensor,
    conditions: Conditions,
    progress: Callable[[int, int], None] | None = None,
    resume: Path | None = None,
    options: str = "",
) -> Tensor:
    """Integrate dz/dsigma = velocity from noise to clean latents over ``scheduler.timesteps`` (already set).

    Args:
        velocity: dz/dsigma of the whole timeline.
        scheduler: any diffusers flow-matching scheduler.
        latents_BCTHW: noise, float32; becomes the result in place.
        conditions: of the whole timeline.
        progress: called with (finished steps, all steps), also before the first.
        resume: file that keeps the state after each finished step. If it exists, the run goes on from there, to the
            same result bit for bit. It stays: whoever has stored the video deletes it.
        options: what else determines the velocity (guidance, windows), so that ``resume`` notices a change of it.

    Raises:
        ValueError: ``resume`` holds the state of other inputs.
    """
    timesteps = scheduler.timesteps
    # A solver works per element. Stepping the timeline in slices, each with its own copy of the solver and its history,
    # keeps temporaries small: of a long timeline, memory holds the latents and the velocity.
    slices = [slice(start, start + SLICE) for start in range(0, latents_BCTHW.shape[2], SLICE)]
    solvers = [copy.deepcopy(scheduler) for _ in slices]
    finished, inputs = 0, ""
    if resume is not None:
        inputs = fingerprint(latents_BCTHW, conditions, timesteps, options)
        if resume.exists():
            finished = load_state(resume, latents_BCTHW, solvers, inputs)
    for step in range(finished, len(timesteps)):
        if progress is not None:
            progress(step, len(timesteps))
        t = timesteps[step]
        velocity_BCTHW = velocity(latents_BCTHW, t, conditions)
        for part, solver in zip(slices, solvers, strict=True):
            before = latents_BCTHW[:, :, part].clone()  # solvers may keep it
            latents_BCTHW[:, :, part] = solver.step(velocity_BCTHW[:, :, part], t, before).prev_sample
        del velocity_BCTHW  # before the next one is made
        if resume is not None and not (dist.is_initialized() and dist.get_rank()):  # of several processes one writes
            save_state(resume, step + 1, latents_BCTHW, solvers, inputs)
    if progress is not None:
        progress(len(timesteps), len(timesteps))
    return latents_BCTHW


def fingerprint(latents_BCTHW: Tensor, conditions: Conditions, timesteps: Tensor, options: str) -> str:
    """Hash of what determines a run besides the weights: noise, timesteps, conditions, options."""
    digest = hashlib.sha256(options.encode())
    for name, value in {"noise": latents_BCTHW, "timesteps": timesteps, **vars(conditions)}.items():
        digest.update(f"{name} {getattr(value, 'shape', value)}".encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_state(path: Path, finished: int, latents_BCTHW: Tensor, solvers: list[Any], inputs: str) -> None:
    """Write the state after ``finished`` steps, solver history included, so that a kill leaves the old or the new."""
    histories = [{k: v for k, v in vars(solver).items() if k != "_internal_dict"} for solver in solvers]
    partial = path.with_name(path.name + ".partial")
    state = {"inputs": inputs, "finished": finished, "latents": latents_BCTHW, "histories": histories}
    torch.save(state, partial)
    os.replace(partial, path)


def load_state(path: Path, latents_BCTHW: Tensor, solvers: list[Any], inputs: str) -> int:
    """Restore latents and solvers in place; returns how many steps are finished."""
    try:
        state = torch.load(path, map_location=latents_BCTHW.device, weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a state to resume from ({error}); delete it to start anew.") from error
    if state["inputs"] != inputs:
        raise ValueError(f"{path} belongs to other inputs or options; give those, or delete it to start anew.")
    latents_BCTHW.copy_(state["latents"])
    for solver, history in zip(solvers, state["histories"], strict=True):
        vars(solver).update(history)
    return state["finished"]
