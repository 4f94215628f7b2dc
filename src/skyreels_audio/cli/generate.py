"""skyreels-audio generate"""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from skyreels_audio.bundled import bundled
from skyreels_audio.cli import door
from skyreels_audio.cli.options import rank
from skyreels_audio.cli.progress import Progress

SHEET_COLUMNS = 6

GUIDANCE = "4.5, linear:1→4.5, cosine:1→4.5 or interval:4.5@0.1-0.8; 1 is off. [default: the checkpoint's]"
EXTEND = "A voice longer than the video: play that back and forth, hold its end, or cut the voice. [default: ping-pong]"
MEMORY = "fast: all on the GPU; balanced: one component at a time; low: 8-bit blocks, one at a time."
CACHE = "Skip steps that change little: teacache is the paper's. Model-dependent figures: `benchmark --fit-teacache`."
THRESHOLD = "TeaCache's alpha: how much change is skipped over; 0 is nothing. [default: 0.3]"
PARALLEL = "Under torchrun: ulysses=, ring=, branch=, window=, e.g. ulysses=2,branch=3. [default: the cheapest]"
COLOURS = "0 to 1: how far colours are held to the picture's. [default: the checkpoint's]"


def generate(
    image: Annotated[Path | None, typer.Option(help="Portrait, of any size. [default: the example]")] = None,
    audio: Annotated[Path | None, typer.Option(help="Voice: a sound file or a video. [default: the example]")] = None,
    prompt: Annotated[str | None, typer.Option(help="Who, in what mood, where; alone it makes the person.")] = None,
    video: Annotated[Path | None, typer.Option(help="Video whose speaker shall speak with the voice.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The MP4 to write.")] = Path("outputs/talking.mp4"),
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder. [default: weights/tiny]")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps. [default: the checkpoint's]")] = None,
    audio_guidance: Annotated[str | None, typer.Option(help=GUIDANCE)] = None,
    text_guidance: Annotated[str | None, typer.Option(help=GUIDANCE)] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same file.")] = 0,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT, SIDE, or source. [default: the checkpoint's]")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second. [default: the checkpoint's]")] = None,
    fusion: Annotated[
        Literal["bidirectional", "unidirectional", "none"] | None, typer.Option(help="How windows of time meet.")
    ] = None,
    colour_strength: Annotated[float | None, typer.Option(min=0, max=1, help=COLOURS)] = None,
    face: Annotated[str | None, typer.Option(help="Of a video: largest, left, right or a number.")] = None,
    extend: Annotated[Literal["ping-pong", "hold", "trim"] | None, typer.Option(help=EXTEND)] = None,
    landmarks: Annotated[
        Literal["mediapipe", "dwpose"] | None, typer.Option(help="Who finds the face of a video. [default: mediapipe]")
    ] = None,
    hybrid_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps that see all of a video, not only its first frame. [default: all]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this command was interrupted.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write a JSON report beside the video.")] = False,
    sign_key: Annotated[Path | None, typer.Option(help="Private key (PEM) for C2PA content credentials.")] = None,
    sign_cert: Annotated[Path | None, typer.Option(help="Its certificate chain (PEM).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option()] = "auto",
    memory: Annotated[Literal["fast", "balanced", "low"], typer.Option(help=MEMORY)] = "fast",
    lora: Annotated[
        list[str] | None, typer.Option(help="FILE[:scale], a Wan LoRA; may be given several times.")
    ] = None,
    cache: Annotated[Literal["none", "teacache", "magcache", "taylorseer"], typer.Option(help=CACHE)] = "none",
    cache_threshold: Annotated[float | None, typer.Option(min=0, help=THRESHOLD)] = None,
    parallel: Annotated[str | None, typer.Option(help=PARALLEL)] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the transformer's blocks; pays in long runs.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only print the estimated memory and time.")] = False,
) -> None:
    """Make a portrait, the speaker of a video, or a person from words speak; without options, the example portrait."""
    from skyreels_audio.media import InputError, contact_sheet, read_image, write_image

    started = time.perf_counter()
    about_video = {"--face": face, "--extend": extend, "--landmarks": landmarks, "--hybrid-steps": hybrid_steps}
    against = {"--image": image, "--fps": fps, "--colour-strength": colour_strength}
    against["--size source"] = size if size == "source" else None
    door.check_together(video, audio, about_video, against)
    if image is None and video is None and prompt is None:
        image = bundled("examples/portrait.png")
    inputs = {"image": image, "video": video, "audio": audio or bundled("examples/voice.wav")}
    outputs = door.Outputs.at(output, inputs=[path for path in inputs.values() if path is not None])
    model, voice_n = model or bundled("weights/tiny"), door.read_voice(inputs["audio"])
    picture = None if image is None else read_image(image)
    width, height = door.choose_size(size, model, picture)
    settings = door.read_settings(
        model,
        num_inference_steps=steps,
        audio_guidance_scale=audio_guidance,
        text_guidance_scale=text_guidance,
        width=width,
        height=height,
        fps=door.frame_rate(video) if video else fps,
        fusion=fusion,
        hybrid_steps=hybrid_steps,
        colour_strength=0.0 if video else colour_strength,
    )
    if video and size and settings.animate != "everything":
        raise InputError(f"--size does not go with --video: {model} edits a face in the size that it was trained at.")
    if image is None and video is None and cache in ("magcache", "taylorseer"):
        raise InputError(
            f"--cache {cache} counts the steps of one video; words alone make a portrait first: add --image."
        )
    if plan:
        return typer.echo(door.estimate(model, settings, len(voice_n), memory))
    credentials = door.read_credentials(sign_key, sign_cert)
    door.check_device(device)
    acceleration = door.choose_acceleration(
        model,
        settings,
        cache=cache,
        threshold=cache_threshold,
        parallel=parallel,
        compile=compile,
        memory=memory,
        resume=resume,
    )
    if not resume:
        outputs.state.unlink(missing_ok=True)

    from skyreels_audio.cli.takes import Run, animate, edit, write
    from skyreels_audio.generation.report import write_report

    how = {"face": face or "largest", "extend": extend or "ping-pong", "landmarks": landmarks or "mediapipe"}
    try:
        with Progress(quiet=rank() > 0) as progress:
            run = Run(
                model,
                device,
                dtype,
                voice_n,
                prompt or "",
                settings,
                seed,
                outputs.state if acceleration.resumable else None,
                progress,
                memory,
                tuple(lora or ()),
                acceleration,
            )
            take = animate(picture, str(image), run) if video is None else edit(video, **how, run=run)
            if rank() > 0:  # the first process writes
                return None
            shown = write(take, output, inputs["audio"], progress)
    except KeyboardInterrupt:
        if outputs.state.exists() and rank() == 0:
            typer.echo("Interrupted; the same command with --resume goes on.", err=True)
        raise
    if credentials is not None:
        credentials.sign(output, edited=video is not None)
    write_image(outputs.sheet, contact_sheet(shown, SHEET_COLUMNS))
    outputs.state.unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    typer.echo(f"{output}: {take.num_frames / take.fps:.2f} s of video in {seconds:.1f} s")
    typer.echo(f"{outputs.sheet}: contact sheet")
    if video is not None:
        typer.echo(f"{video}: {take.kept} of {take.num_frames} frames keep their source")
    if report:
        write_report(outputs.report, inputs, output, run.about | (how if video else {}), take.about, progress.seconds)
        typer.echo(f"{outputs.report}: report")
