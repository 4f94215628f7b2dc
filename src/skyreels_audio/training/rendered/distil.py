"""A checkpoint taught to do in a few steps, without guidance, what it does in many with it.

Progressive distillation (Salimans & Ho, 2022) in one go, with guidance folded in (Meng et al., 2023): from a noisy
sample the teacher takes several guided steps, and the student learns the clean latent that leads to the same place in
one. Of the ways to few steps this is the one that fits a processor: no second network learns beside the student, as
for DMD or adversarial distillation, and every step has a target, where consistency models pull themselves up slowly.
"""

from dataclasses import replace
from typing import Any

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from skyreels_audio.generation.sampling import set_timesteps
from skyreels_audio.training.rendered.curriculum import Sample
from skyreels_audio.training.rendered.flow import FlowTask, exported
from skyreels_audio.training.rendered.loss import flow_loss, interpolate
from skyreels_audio.training.rendered.recipe import RenderedDistilRecipe


class DistilTask(FlowTask):
    """`FlowTask` whose target is where the teacher's guided steps lead; single frames from words stay as they were."""

    def __init__(self, recipe: RenderedDistilRecipe, device: torch.device) -> None:
        super().__init__(recipe.model_copy(update={"initial": recipe.distillation.teacher}), device)
        self.options = recipe.distillation
        self.teacher = exported(recipe.distillation.teacher).to(device).eval().requires_grad_(False)
        self.prepare(self.teacher["transformer"])
        scheduler = FlowMatchEulerDiscreteScheduler(shift=recipe.curriculum.sigma_shift)
        set_timesteps(scheduler, self.options.steps, "cpu")
        self.sigmas = torch.as_tensor(scheduler.sigmas)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = self.begin(step)
        sample = self.draw(self.recipe.optimisation.batch, generator)
        if sample.clean_BCTHW.shape[2] == 1:
            flow = self.flow_loss(sample, generator)
            return flow, {"flow_loss": float(flow.detach())}
        at = int(torch.randint(self.options.steps, (), generator=generator))
        start, stop = self.sigmas[at], self.sigmas[at + 1]
        noise = torch.randn(sample.clean_BCTHW.shape, generator=generator)
        sigmas_B = start.expand(len(noise))
        noisy = interpolate(sample.clean_BCTHW, noise, sigmas_B)
        target = self.target(sample, noisy, float(start), float(stop))
        predicted = self.predict(self.modules, sample, noisy, sigmas_B)
        region, sigmas_B = self.region(sample, generator).to(self.device), sigmas_B.to(self.device)
        loss = flow_loss(predicted, target, sigmas_B, region, self.weight_C)
        return loss, {"distillation_loss": float(loss.detach())}

    @torch.no_grad()
    def target(self, sample: Sample, noisy_BCTHW: Tensor, start: float, stop: float) -> Tensor:
        """The clean latent with which one Euler step from ``start`` to ``stop`` ends where the teacher's steps do."""
        z = noisy_BCTHW.to(self.device)
        between = torch.linspace(start, stop, self.options.teacher_steps + 1).tolist()
        for sigma, following in zip(between, between[1:], strict=False):
            z = z + (following - sigma) * (z - self.guided(sample, z, sigma)) / sigma
        share = stop / start
        return (z - share * noisy_BCTHW.to(self.device)) / (1 - share)

    def guided(self, sample: Sample, noisy_BCTHW: Tensor, sigma: float) -> Tensor:
        """The teacher's clean latent under audio guidance: eq. 3 is linear, so it holds for clean latents too."""
        sigmas_B = torch.full((len(noisy_BCTHW),), sigma)
        full = self.predict(self.teacher, sample, noisy_BCTHW, sigmas_B)
        if self.options.audio_guidance == 1:
            return full
        null_audio = replace(sample, audio_BAD=torch.zeros_like(sample.audio_BAD))
        without: Any = self.predict(self.teacher, null_audio, noisy_BCTHW, sigmas_B)
        return full + (self.options.audio_guidance - 1) * (full - without)
