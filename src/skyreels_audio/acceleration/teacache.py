"""Step caches: neighbouring steps of the denoising do nearly the same, so some of them reuse what the blocks added.

TeaCache (Liu et al. 2024, "Timestep Embedding Tells: It's Time to Cache") as the paper uses it, and the caches that
diffusers ships. B batch, L video token, M model width, D width of the modulation, S step.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions, Part
from skyreels_audio.generation.step import TransformerVelocity, Velocity
from skyreels_audio.models.transformer import Embedded, SkyReelsAudioTransformer3DModel

Coefficients = tuple[float, ...]
"""A polynomial, highest power first."""

COEFFICIENTS: dict[tuple[str, bool], Coefficients] = {
    ("t2v-1.3b", True): (-5.21862437e4, 9.23041404e3, -5.28275948e2, 1.36987616e1, -4.99875664e-2),
    ("t2v-1.3b", False): (2.39676752e3, -1.31110545e3, 2.01331979e2, -8.29855975e0, 1.37887774e-1),
    ("t2v-14b", True): (-3.03318725e5, 4.90537029e4, -2.65530556e3, 5.87365115e1, -3.15583525e-1),
    ("t2v-14b", False): (-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404),
    ("i2v-480p", True): (2.57151496e5, -3.54229917e4, 1.40286849e3, -1.35890334e1, 1.32517977e-1),
    ("i2v-480p", False): (-3.02331670e2, 2.23948934e2, -5.25463970e1, 5.87348440e0, -2.01973289e-1),
    ("i2v-720p", True): (8.10705460e3, 2.13393892e3, -3.72934672e2, 1.66203073e1, -4.17769401e-2),
    ("i2v-720p", False): (-114.36346466, 65.26524496, -18.82220707, 4.91518089, -0.23412683),
}
"""Published fits of the Wan family by (model, retain). SkyReels-V2 takes "i2v-480p" for 540P, at 1.3B too."""

RETAINED_STEPS = 5
"""With `retain`, this many first steps are always computed; without it the first and the last one."""


def published_coefficients(config: Any, pixels: int, retain: bool) -> Coefficients:
    """The row of `COEFFICIENTS` for a transformer's config and the pixels of a frame (height times width).

    Raises:
        ValueError: the model has another width than Wan's; fit its own (`fit_coefficients`).
    """
    width = config.num_attention_heads * config.attention_head_dim
    if width not in (1536, 5120):
        raise ValueError(
            f"TeaCache has no published coefficients for a transformer of width {width}; fit them with "
            "skyreels-audio benchmark --fit-teacache, which stores them in the checkpoint."
        )
    if config.in_channels > config.out_channels:
        return COEFFICIENTS["i2v-720p" if pixels > 640 * 960 else "i2v-480p", retain]
    return COEFFICIENTS["t2v-14b" if width == 5120 else "t2v-1.3b", retain]


@dataclass(frozen=True)
class SkipPlan:
    """Which steps of a run compute the blocks, and which reuse the residual of the last one that did."""

    timesteps: tuple[float, ...]
    computes: tuple[bool, ...]

    def __post_init__(self) -> None:
        assert len(self.timesteps) == len(self.computes) and self.computes[0]

    def source(self, t: Tensor) -> tuple[int, int]:
        """The step of timestep ``t``, and the step whose residual it uses: itself if it computes."""
        step = min(range(len(self.timesteps)), key=lambda index: abs(self.timesteps[index] - float(t)))
        return step, max(index for index in range(step + 1) if self.computes[index])


@torch.no_grad()
def modulations(transformer: SkyReelsAudioTransformer3DModel, timesteps: Tensor, retain: bool) -> Tensor:
    """TeaCache's signal, float32 [steps, D]: the modulation vectors of the blocks (`retain`) or of the head."""
    embedder: Any = transformer.condition_embedder
    weight = next(embedder.time_embedder.parameters())
    temb = embedder.time_embedder(embedder.timesteps_proj(timesteps.to(weight.device)).to(weight.dtype)).float()
    if not retain:
        return temb
    # In float32 as published: neighbouring steps differ by a few roundings of bfloat16.
    projection = embedder.time_proj
    return F.linear(embedder.act_fn(temb), projection.weight.float(), projection.bias.float())


def relative_changes(x_SD: Tensor) -> Tensor:
    """mean |x_i - x_{i-1}| / mean |x_{i-1}| of consecutive rows [S - 1]."""
    return (x_SD[1:] - x_SD[:-1]).abs().mean(dim=1) / x_SD[:-1].abs().mean(dim=1)


def skip_plan(
    transformer: SkyReelsAudioTransformer3DModel,
    timesteps: Tensor,
    coefficients: Coefficients,
    threshold: float,
    retain: bool,
) -> SkipPlan:
    """TeaCache's decisions for a whole run. They depend on time alone, so every branch, window and rank shares them.

    A step is skipped while the changes since the last computed step, each put through the polynomial, sum to less than
    the threshold (the paper's α, there 0.3). A threshold of 0 computes all.
    """
    changes = relative_changes(modulations(transformer, timesteps, retain))
    steps = len(timesteps)
    always = range(RETAINED_STEPS) if retain else (0, steps - 1)
    computes, accumulated = [True], 0.0
    for step in range(1, steps):
        accumulated += float(np.polyval(coefficients, float(changes[step - 1])))
        computes.append(step in always or threshold <= 0 or accumulated >= threshold)
        if computes[-1]:
            accumulated = 0.0
    return SkipPlan(tuple(timesteps.tolist()), tuple(computes))


class TeaCacheVelocity:
    """The transformer as a velocity whose blocks run only at the steps of a plan.

    At the others the residual they last added to the tokens is added again. It is kept per `Conditions.parts`, that
    is per window and branch; one that is missing or outdated (guidance left the branch out) is computed.

    Args:
        transformer: whose blocks are to be skipped.
        plan: `skip_plan` of the timesteps of the run.
        offload: keep residuals in pinned CPU memory, copied while the GPU goes on (of no effect on a CPU).
        velocity: what calls the transformer; None is `TransformerVelocity`.
    """

    def __init__(
        self,
        transformer: SkyReelsAudioTransformer3DModel,
        plan: SkipPlan,
        offload: bool = False,
        velocity: Velocity | None = None,
    ) -> None:
        self.transformer = transformer
        self.plan = plan
        self.velocity = velocity or TransformerVelocity(transformer)
        self.residuals: dict[tuple[Part, ...], tuple[int, Tensor]] = {}
        self.copies = torch.cuda.Stream() if offload and transformer.device.type == "cuda" else None

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        step, source = self.plan.source(t)
        blocks, key = self.transformer.run_blocks, conditions.parts

        def run_blocks(embedded: Embedded) -> Tensor:
            kept, residual_BLM = self.residuals.get(key, (-1, None))
            if residual_BLM is not None and source <= kept < step:
                return embedded.hidden_BLM + self.fetch(residual_BLM, embedded.hidden_BLM)
            hidden_BLM = blocks(embedded)
            self.residuals[key] = step, self.keep(hidden_BLM - embedded.hidden_BLM, residual_BLM)
            return hidden_BLM

        with replaced(self.transformer, "run_blocks", run_blocks):
            return self.velocity(latents_BCTHW, t, conditions)

    def keep(self, residual_BLM: Tensor, buffer_BLM: Tensor | None) -> Tensor:
        """Where the residual waits: itself, or pinned memory into which it is being copied."""
        if self.copies is None:
            return residual_BLM
        if buffer_BLM is None:
            buffer_BLM = torch.empty_like(residual_BLM, device="cpu", pin_memory=True)
        self.copies.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.copies):
            buffer_BLM.copy_(residual_BLM, non_blocking=True)
        residual_BLM.record_stream(self.copies)  # its memory must not be reused before the copy is done
        return buffer_BLM

    def fetch(self, residual_BLM: Tensor, like: Tensor) -> Tensor:
        if self.copies is not None:
            torch.cuda.current_stream().wait_stream(self.copies)
        return residual_BLM.to(like.device, non_blocking=True)


@contextmanager
def replaced(transformer: SkyReelsAudioTransformer3DModel, method: str, by: Callable[..., Any]) -> Iterator[None]:
    """A method of one transformer replaced for the duration of a call, which still passes all of its hooks."""
    before = vars(transformer).get(method)
    setattr(transformer, method, by)
    try:
        yield
    finally:
        delattr(transformer, method)
        if before is not None:
            setattr(transformer, method, before)


@contextmanager
def diffusers_cache(transformer: SkyReelsAudioTransformer3DModel, config: Any) -> Iterator[Velocity]:
    """The transformer as a velocity under a cache that diffusers ships, for one run.

    Args:
        transformer: the model.
        config: e.g. `MagCacheConfig(mag_ratios=magnitude_ratios(...), num_inference_steps=...)` or
            `TaylorSeerCacheConfig()`. They count steps by calls, so no branch may come and go during the run.
    """
    block = type(transformer.blocks[0])
    TransformerBlockRegistry.register(block, TransformerBlockMetadata(return_hidden_states_index=0))
    transformer.enable_cache(config)
    velocity = TransformerVelocity(transformer)

    def cached(latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        name: Any = conditions.parts  # diffusers says a string, and uses it as the key of a dictionary
        with transformer.cache_context(name):
            return velocity(latents_BCTHW, t, conditions)

    try:
        yield cached
    finally:
        transformer.disable_cache()
