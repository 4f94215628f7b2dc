"""Where the time goes, from voice in to video out, against plain runs of the same model in the same minute.

python benchmarks/speed.py --model weights/tiny --chart docs/performance.svg

Whole videos by the wall clock: the checkpoint's own settings, and plain (50 steps, uncached, three branches). Then
steps, on a CPU by processor time: one branch without audio in our loop and in diffusers' Wan pipeline around the same
transformer; three branches with and without what acceleration/ offers to save work.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline

from skyreels_audio import SkyReelsAudioPipeline
from skyreels_audio.acceleration.accelerate import Acceleration, accelerated
from skyreels_audio.acceleration.kv_cache import CrossAttentionKVCache
from skyreels_audio.generation.encoders import encode_conditions, encode_prompts
from skyreels_audio.generation.guidance import Guidance, Scale
from skyreels_audio.generation.inputs import frame_picture
from skyreels_audio.generation.latents import spatial_factor
from skyreels_audio.generation.step import Batched, Executor, TransformerVelocity, Velocity, plan_step
from skyreels_audio.media import VideoWriter, read_image
from skyreels_audio.threads import bound_threads

BRANCHES = ("text and voice", "without voice", "nothing given")
PHASES = {
    "encode": "#4c78a8",
    **dict(zip(BRANCHES, ("#d95f02", "#f58518", "#fdae6b"), strict=True)),
    "rest of denoising": "#fdd0a2",
    "decode": "#54a24b",
    "mux": "#b0b0b0",
}
PLAIN = {"num_inference_steps": 50, "audio_guidance_scale": 4.5, "text_guidance_scale": 5.0}


def clock() -> float:
    """Seconds for comparisons: processor time on a CPU, which others on the machine do not lengthen."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


@contextmanager
def branch_times(transformer: Any) -> Iterator[dict[str, float]]:
    """Seconds within the transformer by guidance branch; those of a batch are shared equally among its rows."""
    spent: dict[str, float] = dict.fromkeys(BRANCHES, 0.0)
    started = 0.0

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def before(*_: Any) -> None:
        nonlocal started
        started = now()

    def after(module: Any, args: Any, given: dict[str, Any], output: Any) -> None:
        duration = now() - started
        masks_BC = given["hidden_states"][:, module.config.out_channels :][:, :4].flatten(2).any(2)
        heard_B, known_B = given["audio_hidden_states"].flatten(1).any(1), masks_BC.any(1)
        for heard, known in zip(heard_B.tolist(), known_B.tolist(), strict=True):  # what is dropped is zeros
            spent[BRANCHES[0 if heard else 1 if known else 2]] += duration / len(heard_B)

    hooks = transformer.register_forward_pre_hook(before), transformer.register_forward_hook(after, with_kwargs=True)
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def video_times(pipe: Any, image: np.ndarray, voice: np.ndarray, **given: Any) -> dict[str, float]:
    """Seconds of each phase of one video, model loaded."""
    marks, encoding = {}, 0.0

    def progress(phase: str, done: int, total: int) -> None:
        marks[phase, done == total] = time.perf_counter()

    start = time.perf_counter()
    with branch_times(pipe.transformer) as branches:
        output = pipe(image, voice, **given, generator=torch.Generator().manual_seed(0), progress=progress)
    sampled = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        size = pipe.settings().width, pipe.settings().height
        with VideoWriter(Path(folder) / "video.mp4", *size, output.fps) as writer:
            for frame in output.frames:
                before = time.perf_counter()
                writer.write(frame)
                encoding += time.perf_counter() - before
            before = time.perf_counter()
        end = time.perf_counter()
    encoding += end - before
    encoded = marks["encode", True]
    return {
        "encode": encoded - start,
        **branches,
        "rest of denoising": sampled - encoded - sum(branches.values()),
        "decode": end - sampled - encoding,
        "mux": encoding,
    }


def diffusers_step(pipe: Any, image: np.ndarray, frames: int, steps: int) -> float:
    """Seconds per step of diffusers' Wan loop around our transformer: one branch, no audio."""
    diffusers_pipeline: Any = WanImageToVideoPipeline
    wan = diffusers_pipeline(
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        vae=None,  # whose config it would read more of than our autoencoder's has
        scheduler=pipe.scheduler,
        transformer=pipe.transformer,
    )
    wan.vae = pipe.vae
    wan.set_progress_bar_config(disable=True)
    wan.vae_scale_factor_spatial = spatial_factor(pipe.vae)
    times: list[float] = []

    def note(*step: Any) -> Any:
        times.append(clock())
        return step[-1]

    text_BSD = torch.zeros(1, pipe.settings().text_tokens, pipe.transformer.config.text_dim)
    wan(
        image=torch.from_numpy(image).permute(2, 0, 1)[None] / 255,
        prompt_embeds=text_BSD,
        height=image.shape[0],
        width=image.shape[1],
        num_frames=frames,
        num_inference_steps=steps,
        guidance_scale=1.0,
        output_type="latent",
        callback_on_step_end=note,
        callback_on_step_end_tensor_inputs=[],
    )
    return (times[-1] - times[0]) / (steps - 1)


def our_step(pipe: Any, image: np.ndarray, voice: np.ndarray, steps: int, branches: int, execute: Executor) -> float:
    """Seconds per step of our loop, in one window; a single branch goes without audio, as diffusers' does."""
    pipe.executor = execute
    times: list[float] = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "sample":
            times.append(clock())

    scale = 1.0 if branches == 1 else 4.5
    pipe(
        image,
        voice,
        num_inference_steps=steps,
        audio_guidance_scale=scale,
        text_guidance_scale=scale,
        window=1000,
        generator=torch.Generator().manual_seed(0),
        progress=progress,
    )
    return (times[-1] - times[1]) / (steps - 1)


def without_audio(velocity: Velocity) -> Velocity:
    return lambda z, t, conditions: velocity(z, t, replace(conditions, audio_BAD=None))


def chart(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Stacked bars as SVG: one bar per row, all of one length, a colour per phase, seconds written at the end."""
    parts, left = [], 10
    for phase, colour in PHASES.items():
        parts.append(f'<rect x="{left}" y="10" width="14" height="14" fill="{colour}"/>')
        parts.append(f'<text x="{left + 20}" y="22">{phase}</text>')
        left += 40 + 7 * len(phase)
    for index, (name, row) in enumerate(rows.items()):
        start, top, whole = 70.0, 40 + 34 * index, sum(row.values())
        parts.append(f'<text x="60" y="{top + 16}" text-anchor="end">{name}</text>')
        for phase, seconds in row.items():
            width = 600 * seconds / whole
            parts.append(f'<rect x="{start:.1f}" y="{top}" width="{width:.1f}" height="22" fill="{PHASES[phase]}"/>')
            start += width
        parts.append(f'<text x="{start + 8:.1f}" y="{top + 16}">{whole:.1f} s</text>')
    style = 'font-family="sans-serif" font-size="13"'
    size = f'width="{max(left, 740)}" height="{50 + 34 * len(rows)}"'
    ground = '<rect width="100%" height="100%" fill="white"/>'  # pages may be dark
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{ground}{"".join(parts)}</svg>\n')


def best(measure: Callable[[], float], repeats: int = 3) -> float:
    """The least of a few times, after one that is not counted: what others do on the machine only adds."""
    measure()
    return min(measure() for _ in range(repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="weights/tiny")
    parser.add_argument("--dtype", default="bfloat16" if torch.cpu.get_capabilities().get("avx512_bf16") else "float32")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the video")
    parser.add_argument("--step-frames", type=int, default=33, help="frames of the video whose steps are timed")
    parser.add_argument("--plain-steps", type=int, default=50)
    parser.add_argument("--chart", type=Path)
    options = parser.parse_args()
    bound_threads()
    pipe: Any = SkyReelsAudioPipeline.from_pretrained(options.model, dtype=getattr(torch, options.dtype))
    settings = pipe.settings()
    rng = np.random.default_rng(0)
    image = frame_picture(read_image("examples/portrait.jpg"), (settings.height, settings.width)).picture_HWC
    size = settings.width, settings.height
    samples = int(16000 * options.seconds)
    voice = 0.1 * rng.standard_normal(samples).astype(np.float32)

    video_times(pipe, image, voice[:16000], num_inference_steps=1)  # warm-up
    with accelerated(pipe, Acceleration(), settings):  # as the command does
        default = video_times(pipe, image, voice)
    rows = {
        "default": default,
        "plain": video_times(pipe, image, voice, **PLAIN | {"num_inference_steps": options.plain_steps}),
    }
    print(f"{options.seconds:g} s of video, {size[0]}x{size[1]}, {options.dtype}, {torch.get_num_threads()} threads\n")
    print(f"| run | {' | '.join(f'{phase} s' for phase in PHASES)} | real-time factor |")
    print("| --- " * (len(PHASES) + 2) + "|")
    for name, row in rows.items():
        cells = " | ".join(f"{seconds:.2f}" for seconds in row.values())
        print(f"| {name} | {cells} | {sum(row.values()) / options.seconds:.2f} |")
    if options.chart:
        chart(rows, options.chart)

    frames, steps = options.step_frames, 5
    short = voice[: int(16000 * frames / settings.fps)]
    plain = TransformerVelocity(pipe.transformer)
    silent = best(lambda: our_step(pipe, image, short, steps, 1, Batched(without_audio(plain))))
    theirs = best(lambda: diffusers_step(pipe, image, frames, steps))
    print(f"\none branch, {frames} frames: ours {1000 * silent:.1f} ms a step, diffusers' loop {1000 * theirs:.1f} ms")

    three = best(lambda: our_step(pipe, image, short, steps, 3, Batched(plain)))
    kv_cache = CrossAttentionKVCache(plain, pipe.transformer)

    def kept() -> float:
        kv_cache.kept.clear()
        return our_step(pipe, image, short, steps, 3, Batched(kv_cache))

    once = best(kept)
    kv_cache.close()
    print(f"three branches: {1000 * three:.1f} ms a step; keys and values kept {1000 * once:.1f} ms")
    print(f"three branches as one batch: {1000 * batched_step(pipe, settings, frames, plain):.1f} ms")


def batched_step(pipe: Any, settings: Any, frames: int, velocity: Velocity) -> float:
    latents = (frames - 1) // 4 + 1
    rng = torch.Generator().manual_seed(0)
    voice = 0.1 * torch.randn(int(16000 * frames / settings.fps), generator=rng)
    picture = np.zeros((1, settings.height, settings.width, 3), np.uint8)
    text_2SD = encode_prompts(pipe, "", "", None, None, settings)
    conditions = encode_conditions(pipe, picture, None, voice, text_2SD, latents, settings)
    noise = torch.randn(1, pipe.vae.config.z_dim, *conditions.reference_BCTHW.shape[2:], generator=rng)
    guidance = Guidance(Scale.parse(4.5), Scale.parse(3))
    plan = plan_step(settings.windows, guidance.branches(0.0, conditions))
    execute = Batched(velocity, 3 * noise[0, 0].numel())

    def step() -> float:
        start = clock()
        execute(plan, noise, torch.tensor(1000.0), conditions)
        return clock() - start

    return best(step)


if __name__ == "__main__":
    main()
