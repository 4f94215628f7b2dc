"""One run made cheaper: step cache, what is computed once, batches, several devices, put around the transformer.

Each is a wrapper with a module of its own, and none of them knows the others; here they are put in order.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from torch import Tensor

from skyreels_audio.generation.cache import (
    Coefficients,
    TeaCacheVelocity,
    diffusers_cache,
    published_coefficients,
    skip_plan,
)
from skyreels_audio.generation.calls import Batched, Compose, Together
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.constant_conditions import ConstantConditions
from skyreels_audio.generation.guidance import Scale, Velocity
from skyreels_audio.generation.parallel import Parallel, Spread, parallelise, plan_parallel
from skyreels_audio.generation.sampling import TransformerVelocity, set_timesteps
from skyreels_audio.generation.settings import Settings

Cache = Literal["none", "teacache", "magcache", "taylorseer"]

RETAIN = False
"""TeaCache's variant: the first and the last step are always computed. The other one computes five, which is more than
a distilled checkpoint has."""

PAPER_THRESHOLD = 0.3

KEPT_BYTES = {"cpu": 512 << 20}
"""What `ConstantConditions` may keep, by kind of device: it grows with the video. Elsewhere 2 GB."""

BATCH_TOKENS = 1024
"""Calls are batched up to so many tokens; larger ones fill a processor by themselves."""


@dataclass(frozen=True)
class Acceleration:
    """How a run is to be made cheaper.

    Attributes:
        cache: step cache.
        threshold: TeaCache's α; 0 skips nothing.
        spare_memory: keep TeaCache's residuals in main memory, and nothing of `ConstantConditions`.
        parallel: how ranks share the work, for `Parallel.parse`; None: the cheapest way.
        compile: compile the transformer's blocks.
    """

    cache: Cache = "none"
    threshold: float = PAPER_THRESHOLD
    spare_memory: bool = False
    parallel: str | None = None
    compile: bool = False

    @property
    def resumable(self) -> bool:
        """Whether an interrupted run can go on: what a cache keeps is not stored."""
        return self.cache == "none"

    def check(self, settings: Settings, config: Any, ranks: int) -> None:
        """Whether it can be done, from settings, the transformer's config and the number of processes alone.

        Raises:
            ValueError: it cannot.
        """
        if self.cache == "teacache":
            self.coefficients(settings, config)
        if self.cache == "magcache" and settings.magcache_ratios is None:
            raise ValueError(
                "MagCache knows no ratios of this checkpoint; skyreels-audio benchmark --fit-teacache measures them "
                "and stores them in it."
            )
        hooked = self.cache in ("magcache", "taylorseer")
        if hooked and self.compile:
            raise ValueError(
                f"--cache {self.cache} works by hooks within the blocks, which do not compile: leave --compile out, or "
                "give --cache teacache."
            )
        if hooked and branches_change(settings):
            raise ValueError(
                f"--cache {self.cache} counts the steps of each guidance branch, so none may come and go during the "
                "run: give guidance scales that are constant, or --cache teacache."
            )
        if self.parallel is not None:
            Parallel.parse(self.parallel, ranks, config.num_attention_heads)

    def coefficients(self, settings: Settings, config: Any) -> Coefficients:
        """TeaCache's polynomial: the checkpoint's own, else the published one; ValueError without either."""
        own = settings.teacache_coefficients
        return own or published_coefficients(config, settings.height * settings.width, RETAIN)


def branches_change(settings: Settings) -> bool:
    """Whether a guidance branch is needed at some steps and not at others."""
    steps = settings.num_inference_steps
    for scale in (Scale.parse(settings.audio_guidance_scale), Scale.parse(settings.text_guidance_scale)):
        if len({scale(step / max(steps - 1, 1)) == 1 for step in range(steps)}) > 1:
            return True
    return False


@contextmanager
def accelerated(pipe: Any, acceleration: Acceleration, settings: Settings) -> Iterator[Callable[[Compose], Velocity]]:
    """What to call the pipeline with as ``arrange``, for one run with these settings.

    Under torchrun (`parallel.process_group`) it divides the loaded transformer for good.
    """
    transformer = pipe.transformer
    if acceleration.compile:
        transformer.compile_repeated_blocks()
    timesteps = set_timesteps(pipe.scheduler, settings.num_inference_steps, pipe._execution_device)
    with step_cache(transformer, acceleration, settings, timesteps) as velocity:
        rest = transformer, acceleration.parallel, settings
        if acceleration.compile or acceleration.spare_memory:  # hooks within the blocks do not compile
            yield lambda compose: Arranged(compose, velocity, *rest)
            return
        most = KEPT_BYTES.get(pipe._execution_device.type, 2 << 30)
        with closing(ConstantConditions(velocity, transformer, most)) as constant:
            yield lambda compose: Arranged(compose, constant, *rest)


def step_cache(
    transformer: Any, acceleration: Acceleration, settings: Settings, timesteps: Tensor
) -> AbstractContextManager[Velocity]:
    """The transformer as a velocity behind the cache that is asked for."""
    steps = len(timesteps)
    if acceleration.cache == "teacache":
        coefficients = acceleration.coefficients(settings, transformer.config)
        plan = skip_plan(transformer, timesteps, coefficients, acceleration.threshold, RETAIN)
        return nullcontext(TeaCacheVelocity(transformer, plan, acceleration.spare_memory))
    if acceleration.cache == "magcache":
        assert settings.magcache_ratios is not None
        config = MagCacheConfig(mag_ratios=list(settings.magcache_ratios), num_inference_steps=steps)
        return diffusers_cache(transformer, config)
    if acceleration.cache == "taylorseer":
        return diffusers_cache(transformer, TaylorSeerCacheConfig())
    return nullcontext(TransformerVelocity(transformer))


class Arranged:
    """The velocity ``compose(velocity)``, its small calls in batches, and all of them shared by the ranks there are.

    How is decided at the first step, which shows how many calls there are, and how large. What is evaluated together
    is in memory together, so one process does that with small calls alone.
    """

    def __init__(
        self, compose: Compose, velocity: Velocity, transformer: Any, parallel: str | None, settings: Settings
    ) -> None:
        self.compose = compose
        self.velocity = velocity
        self.transformer = transformer
        self.parallel = parallel
        self.settings = settings
        self.chosen: Velocity | None = None

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        if self.chosen is None:
            self.chosen = self.choose(latents_BCTHW, t, conditions)
        return self.chosen(latents_BCTHW, t, conditions)

    def choose(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Velocity:
        config = self.transformer.config
        tokens_of: dict[tuple[str, ...], int] = {}

        def look(latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
            tokens_of[conditions.key] = latents_BCTHW[0, 0].numel() // math.prod(config.patch_size)
            return torch.zeros_like(latents_BCTHW)

        self.compose(look)(latents_BCTHW, t, conditions)
        tokens = max(tokens_of.values())
        most = max(1, BATCH_TOKENS // tokens)
        batched = Batched(self.velocity, most)
        if not dist.is_initialized():
            alone = most == 1 or len(tokens_of) == 1
            return self.compose(self.velocity) if alone else Together(self.compose, batched)
        ranks, heads = dist.get_world_size(), config.num_attention_heads
        if self.parallel is not None:
            parallel = Parallel.parse(self.parallel, ranks, heads)
        else:
            scales = (self.settings.audio_guidance_scale, self.settings.text_guidance_scale)
            branches = 1 + sum(Scale.parse(scale) != Scale.parse(1) for scale in scales)
            windows = len({tuple(part for part in key if part[0] != "-") for key in tokens_of})
            width = heads * config.attention_head_dim
            parallel = plan_parallel(ranks, heads, width, tokens, branches, windows)
        group = parallelise(self.transformer, parallel, latents_BCTHW.device)
        return Together(self.compose, Spread(batched, group) if parallel.calls > 1 else batched)
