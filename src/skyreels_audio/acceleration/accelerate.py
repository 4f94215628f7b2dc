"""One run made cheaper: step cache, what is computed once, batches, several devices, put around the transformer.

Each is a wrapper with a module of its own, and none of them knows the others; here they are put in order.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch.distributed as dist
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from torch import Tensor

from skyreels_audio.acceleration.distributed import Parallel, parallelise, plan_parallel
from skyreels_audio.acceleration.kv_cache import CrossAttentionKVCache
from skyreels_audio.acceleration.teacache import (
    Coefficients,
    TeaCacheVelocity,
    diffusers_cache,
    published_coefficients,
    skip_plan,
)
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.sampling import set_timesteps
from skyreels_audio.generation.settings import Settings
from skyreels_audio.generation.step import (
    BATCH_TOKENS,
    Batched,
    Distributed,
    Evaluation,
    Executor,
    TransformerVelocity,
    Velocity,
)

Cache = Literal["none", "teacache", "magcache", "taylorseer"]

RETAIN = False
"""TeaCache's variant: the first and the last step are always computed. The other one computes five, which is more than
a distilled checkpoint has."""

PAPER_THRESHOLD = 0.3

KEPT_BYTES = {"cpu": 512 << 20}
"""What `CrossAttentionKVCache` may keep, by kind of device: it grows with the video. Elsewhere 2 GB."""


@dataclass(frozen=True)
class Acceleration:
    """How a run is to be made cheaper.

    Attributes:
        cache: step cache.
        threshold: TeaCache's α; 0 skips nothing.
        spare_memory: keep TeaCache's residuals in main memory, and nothing of `CrossAttentionKVCache`.
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
        if hooked and settings.guidance.branches_change(settings.num_inference_steps):
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


@contextmanager
def accelerated(pipe: Any, acceleration: Acceleration, settings: Settings) -> Iterator[None]:
    """The pipeline, for one run with these settings, with what is asked for in the place of its executor.

    Under torchrun (`distributed.process_group`) it divides the loaded transformer for good.
    """
    transformer = pipe.transformer
    if acceleration.compile:
        transformer.compile_repeated_blocks()
    timesteps = set_timesteps(
        pipe.scheduler, settings.num_inference_steps, pipe._execution_device, settings.timestep_spacing
    )
    before = pipe.executor
    try:
        with step_cache(transformer, acceleration, settings, timesteps) as velocity, ExitStack() as stack:
            if not (acceleration.compile or acceleration.spare_memory):  # hooks within the blocks do not compile
                most = KEPT_BYTES.get(pipe._execution_device.type, 2 << 30)
                velocity = stack.enter_context(closing(CrossAttentionKVCache(velocity, transformer, most)))
            pipe.executor = SharedExecutor(velocity, transformer, acceleration.parallel, settings.branches)
            yield
    finally:
        pipe.executor = before


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


class SharedExecutor:
    """Small evaluations in batches, and all of them shared by the ranks there are.

    How is decided at the first step, whose plan shows how many evaluations there are, and how large.

    Args:
        velocity: evaluates the transformer.
        transformer: the model inside ``velocity``.
        parallel: how ranks share the work, for `Parallel.parse`; None: the cheapest way.
        branches: velocities of a window that guidance needs at most; the first step may need fewer.
    """

    def __init__(self, velocity: Velocity, transformer: Any, parallel: str | None, branches: int) -> None:
        self.local = Batched(velocity, BATCH_TOKENS * math.prod(transformer.config.patch_size))
        self.transformer = transformer
        self.parallel = parallel
        self.branches = branches
        self.chosen: Executor | None = None

    def __call__(self, plan: list[Evaluation], latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        if self.chosen is None:
            self.chosen = self.local if not dist.is_initialized() else self.over_ranks(plan, latents_BCTHW)
        return self.chosen(plan, latents_BCTHW, t, conditions)

    def over_ranks(self, plan: list[Evaluation], latents_BCTHW: Tensor) -> Executor:
        """Divides the transformer's tokens, or the evaluations of a step, or both."""
        config = self.transformer.config
        ranks, heads = dist.get_world_size(), config.num_attention_heads
        if self.parallel is not None:
            parallel = Parallel.parse(self.parallel, ranks, heads)
        else:
            spans = {evaluation.span for evaluation in plan}
            cells = max(stop - start for start, stop in spans) * latents_BCTHW[0, 0, 0].numel()
            tokens, width = cells // math.prod(config.patch_size), heads * config.attention_head_dim
            parallel = plan_parallel(ranks, heads, width, tokens, self.branches, len(spans))
        group = parallelise(self.transformer, parallel, latents_BCTHW.device)
        return Distributed(self.local, group) if parallel.calls > 1 else self.local
