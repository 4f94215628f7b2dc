"""What step caches save and what they cost: speed-up of denoising, distance to the uncached video, lips, over α.

python benchmarks/cache.py --model weights/tiny --image examples/portrait.jpg --audio examples/voice.wav

One run, one table; the first row is what all others are compared with. `--fit` first fits TeaCache's coefficients to
the model, on the same inputs with other noise. PSNR and the correlation of the lip aperture are to the uncached video.
Time on a CPU is processor time, which others on the machine do not lengthen.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig

from skyreels_audio import SkyReelsAudioPipeline
from skyreels_audio.acceleration.accelerate import Acceleration
from skyreels_audio.acceleration.cache_fit import ResidualChanges, fit_coefficients, magnitude_ratios, record_changes
from skyreels_audio.acceleration.teacache import SkipPlan, TeaCacheVelocity, diffusers_cache, skip_plan
from skyreels_audio.evaluation.lips import correlation, lip_aperture_curve
from skyreels_audio.generation.sampling import set_timesteps
from skyreels_audio.generation.step import Batched, TransformerVelocity, Velocity
from skyreels_audio.media import read_audio, read_image

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="weights/tiny")
    parser.add_argument("--dtype", default="bfloat16" if torch.cpu.get_capabilities().get("avx512_bf16") else "float32")
    parser.add_argument("--image", default="examples/portrait.jpg")
    parser.add_argument("--audio", default="examples/voice.wav")
    parser.add_argument("--seconds", type=float, default=4.0, help="of the voice")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--retain", action="store_true", help="always compute the first five steps, not first and last")
    parser.add_argument(
        "--fit", action="store_true", help="fit TeaCache here instead of taking the checkpoint's, or the published, fit"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    pipe = SkyReelsAudioPipeline.from_pretrained(options.model, dtype=getattr(torch, options.dtype))
    pipe.set_progress_bar_config(disable=True)
    settings = pipe.settings()
    picture = read_image(options.image)
    inputs: dict[str, Any] = {
        "image": picture,
        "audio": read_audio(options.audio)[: int(16000 * options.seconds)],
        "audio_guidance_scale": 4.5,
    }

    if options.fit or options.retain:  # what a checkpoint stores is for first and last
        example = inputs | {"generator": torch.Generator().manual_seed(1)}
        changes = record_changes(pipe, [example], [options.steps // 2, options.steps])
        coefficients = fit_coefficients(pipe.transformer, changes, options.retain)
        print("coefficients:", *(f"{value:.9g}" for value in coefficients))
    else:
        coefficients = Acceleration("teacache").coefficients(settings, pipe.transformer.config)
    timesteps = set_timesteps(pipe.scheduler, options.steps, pipe.device)

    def video(velocity: Velocity) -> tuple[float, np.ndarray]:
        """Seconds of denoising, and the frames."""
        clock = time.process_time if pipe.device.type == "cpu" else time.perf_counter
        times = []
        pipe.executor = Batched(velocity)
        output = pipe(
            **inputs,
            num_inference_steps=options.steps,
            generator=torch.Generator().manual_seed(0),
            progress=lambda phase, done, total: times.append(clock()) if phase == "sample" else None,
        )
        return times[-1] - times[0], np.stack(list(output.frames))

    video(TransformerVelocity(pipe.transformer))  # a warm-up, so that the baseline does not pay for it
    recorder = ResidualChanges(pipe.transformer)
    video(recorder)
    seconds, uncached = video(TransformerVelocity(pipe.transformer))
    lips = lip_aperture_curve(uncached)
    print(f"{options.model}, {len(uncached)} frames, {options.steps} steps, {options.dtype}, retain {options.retain}\n")
    print("| cache | steps computed | denoising s | speed-up | PSNR dB | lip aperture r |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| none | {options.steps} | {seconds:.1f} | 1.00 | | |")
    for name, computed, made in variants(pipe, timesteps, coefficients, recorder, options.retain):
        with made as velocity:
            cached_seconds, frames = video(velocity)
        error = np.square(frames.astype(np.float32) - uncached).mean()
        psnr = 10 * np.log10(255**2 / max(error, 1e-6))
        r = correlation(lip_aperture_curve(frames), lips)
        print(f"| {name} | {computed} | {cached_seconds:.1f} | {seconds / cached_seconds:.2f} | {psnr:.1f} | {r:.3f} |")


def variants(
    pipe: Any, timesteps: torch.Tensor, coefficients: tuple[float, ...], recorder: ResidualChanges, retain: bool
) -> Iterator[tuple[str, str, Any]]:
    """Name, number of computed steps, and a context that holds the velocity."""

    @contextmanager
    def teacache(plan: SkipPlan) -> Iterator[Velocity]:
        yield TeaCacheVelocity(pipe.transformer, plan)

    for threshold in THRESHOLDS:
        plan = skip_plan(pipe.transformer, timesteps, coefficients, threshold, retain)
        yield f"TeaCache α = {threshold}", str(sum(plan.computes)), teacache(plan)
    ratios = magnitude_ratios(timesteps, recorder.changes)
    magcache = MagCacheConfig(mag_ratios=ratios, num_inference_steps=len(timesteps))
    yield "MagCache", "", diffusers_cache(pipe.transformer, magcache)
    yield "TaylorSeer", "", diffusers_cache(pipe.transformer, TaylorSeerCacheConfig())


if __name__ == "__main__":
    main()
