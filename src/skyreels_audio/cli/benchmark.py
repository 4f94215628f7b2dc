"""skyreels-audio benchmark"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import skyreels_audio.cli.door as door
from skyreels_audio.acceleration.ranks import world_size
from skyreels_audio.bundled import bundled
from skyreels_audio.cli.progress import Progress
from skyreels_audio.rendering.inputs import read_voice

if TYPE_CHECKING:
    import numpy as np

    from skyreels_audio.rendering.run import Run

FIT_STEPS = 50
FIT = "Measure what --cache teacache and magcache need to know of the checkpoint, and store it in its model_index.json."


def benchmark(
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder. [default: weights/tiny]")] = None,
    fit_teacache: Annotated[bool, typer.Option("--fit-teacache", help=FIT)] = False,
    image: Annotated[Path | None, typer.Option(help="Portrait. [default: the example]")] = None,
    audio: Annotated[Path | None, typer.Option(help="Voice. [default: the example]")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How much of the voice is used.")] = 4.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps. [default: the checkpoint's; of a fit 50]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option()] = "auto",
    suite: Annotated[
        str | None, typer.Option(help="Make the videos of a suite: talking-50x30x20, or a YAML file.")
    ] = None,
    subset: Annotated[int, typer.Option(min=1, help="Of a suite: its first so many cases, balanced.")] = 50,
    shard: Annotated[str, typer.Option(help="Of a suite: this process's part, such as 1/4.")] = "1/1",
    out: Annotated[Path, typer.Option(help="Of a suite: the folder for inputs and videos.")] = Path("benchmark"),
) -> None:
    """Time a video on this machine, phase by phase; fit the step caches to a checkpoint; or make a suite's videos."""
    from skyreels_audio.media import SAMPLE_RATE, InputError, read_image

    if world_size() > 1:
        raise InputError("benchmark is for one process; what torchrun starts is generate.")
    model = model or bundled("weights/tiny")
    if suite is not None:
        from skyreels_audio.cli.suite import run_suite

        return typer.echo(run_suite(suite, subset, model, out, shard, device, dtype))
    picture = read_image(image or bundled("examples/portrait.jpg"))
    voice_n = read_voice(audio or bundled("examples/voice.wav")).waveform_n[: round(SAMPLE_RATE * seconds)]
    settings = door.read_settings(model, num_inference_steps=None if fit_teacache else steps)
    door.check_device(device)

    from skyreels_audio.rendering.run import Run, animate

    with Progress() as progress:
        run = Run(model, device, dtype, voice_n, "", settings, 0, None, progress)
        if fit_teacache:
            told = fit(run, picture, steps or FIT_STEPS)
        else:
            video = animate(picture, run)
            started = time.perf_counter()
            for _ in video.frames:
                pass
            decoding = time.perf_counter() - started
            told = table(progress.seconds | {"decode": decoding}, video.num_frames / video.fps)
    typer.echo(told)


def table(seconds: dict[str, float], length: float) -> str:
    """Seconds of each phase after loading, and all of them for each second of video."""
    spent = {f"{phase} s": duration for phase, duration in seconds.items() if phase != "load"}
    spent["real-time factor"] = sum(spent.values()) / length
    rows = [spent, ["---"] * len(spent), [f"{value:.2f}" for value in spent.values()]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fit(run: "Run", picture: "np.ndarray", steps: int) -> str:
    """Store TeaCache's polynomial and MagCache's ratios in the checkpoint, from runs of so many steps, half as many,
    and as many as the checkpoint's default: what the polynomial is to serve. Returns what to tell."""
    import torch

    from skyreels_audio.acceleration.accelerate import PAPER_THRESHOLD, RETAIN
    from skyreels_audio.acceleration.cache_fit import fit_coefficients, magnitude_ratios, record_changes
    from skyreels_audio.acceleration.teacache import skip_plan
    from skyreels_audio.media import InputError

    counts = sorted({max(steps // 2, 1), steps, run.settings.num_inference_steps})
    example = {
        "image": picture,
        "audio": run.voice_n,
        "generator": torch.Generator().manual_seed(run.seed),
        "progress": run.progress,
    }
    try:
        with run.ready() as pipe:
            changes = record_changes(pipe, [example], counts)
            coefficients = fit_coefficients(pipe.transformer, changes, RETAIN)
    except ValueError as error:
        raise InputError(str(error)) from error
    timesteps = pipe.scheduler.timesteps  # of the most steps, which came last
    store(run.model, teacache_coefficients=coefficients, magcache_ratios=magnitude_ratios(timesteps, changes))
    computed = sum(skip_plan(pipe.transformer, timesteps, coefficients, PAPER_THRESHOLD, RETAIN).computes)
    return (
        f"{run.model}: knows its step caches; at a threshold of {PAPER_THRESHOLD} TeaCache computes {computed} of "
        f"{len(timesteps)} steps"
    )


def store(model: Path, **figures: Any) -> None:
    """Put generation defaults into a checkpoint's index, which holds the old or the new at any moment."""
    from skyreels_audio.media.files import replacing, writing

    path = model / "model_index.json"
    index = json.loads(path.read_text())
    index["generation_defaults"] = index.get("generation_defaults", {}) | figures
    with writing(path), replacing(path) as partial:
        partial.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
