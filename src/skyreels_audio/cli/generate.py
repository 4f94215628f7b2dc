"""skyreels-audio generate"""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import skyreels_audio.cli.door as door
from skyreels_audio.acceleration.ranks import rank
from skyreels_audio.bundled import bundled
from skyreels_audio.cli.interruption import ending_promptly
from skyreels_audio.cli.outputs import Outputs
from skyreels_audio.cli.progress import Progress
from skyreels_audio.rendering import LONGEST_SIDE, SHEET_NOTE
from skyreels_audio.rendering.inputs import frame_rate, read_voice

if TYPE_CHECKING:
    import numpy as np

    from skyreels_audio.generation.settings import Settings
    from skyreels_audio.rendering.run import Run

SHEET_COLUMNS = 6

SIZE = "WIDTHxHEIGHT, SIDE, or source. [default: the checkpoint's; of weights/tiny the picture's, 1024 at most]"
GUIDANCE = "4.5, linear:1→4.5, cosine:1→4.5 or interval:4.5@0.1-0.8; 1 is off. [default: the checkpoint's]"
EXTEND = "A voice longer than the video: play that back and forth, hold its end, or cut the voice. [default: ping-pong]"
MEMORY = "fast: all on the GPU; balanced: one component at a time; low: 8-bit blocks, one at a time."
CACHE = "Skip steps that change little: teacache is the paper's. Model-dependent figures: `benchmark --fit-teacache`."
THRESHOLD = "TeaCache's alpha: how much change is skipped over; 0 is nothing. [default: 0.3]"
PARALLEL = "Under torchrun: ulysses=, ring=, branch=, window=, e.g. ulysses=2,branch=3. [default: the cheapest]"
LANDMARKS = "Who finds the face of a video. [default: mediapipe]"
HYBRID = "Steps that see all of a video, not only its first frame. [default: all]"
SOUND = "aac: copied, or encoded so, as all players want it; flac or copy keep it bit for bit."
MOTION = "0 to 1: how much of a portrait moves besides its mouth. [default: the checkpoint's, 1]"
COLOURS = "0 to 1: how far colours are held to the picture's. [default: the checkpoint's]"

Fused = Literal["bidirectional", "unidirectional", "none"]


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
    size: Annotated[str | None, typer.Option(help=SIZE)] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second. [default: the checkpoint's]")] = None,
    motion: Annotated[float | None, typer.Option(min=0, max=1, help=MOTION)] = None,
    fusion: Annotated[Fused | None, typer.Option(help="How windows of time meet.")] = None,
    colour_strength: Annotated[float | None, typer.Option(min=0, max=1, help=COLOURS)] = None,
    face: Annotated[str | None, typer.Option(help="Of a video: largest, left, right or a number.")] = None,
    extend: Annotated[Literal["ping-pong", "hold", "trim"] | None, typer.Option(help=EXTEND)] = None,
    landmarks: Annotated[Literal["mediapipe", "dwpose"] | None, typer.Option(help=LANDMARKS)] = None,
    hybrid_steps: Annotated[int | None, typer.Option(min=0, help=HYBRID)] = None,
    audio_codec: Annotated[Literal["aac", "copy", "flac"], typer.Option(help=SOUND)] = "aac",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this command was interrupted.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write a JSON report beside the video.")] = False,
    sign_key: Annotated[Path | None, typer.Option(help="Private key (PEM) for C2PA content credentials.")] = None,
    sign_cert: Annotated[Path | None, typer.Option(help="Its certificate chain (PEM).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option()] = "auto",
    memory: Annotated[Literal["fast", "balanced", "low"], typer.Option(help=MEMORY)] = "fast",
    lora: Annotated[list[str] | None, typer.Option(help="FILE[:scale], a Wan LoRA; several may be given.")] = None,
    cache: Annotated[Literal["none", "teacache", "magcache", "taylorseer"], typer.Option(help=CACHE)] = "none",
    cache_threshold: Annotated[float | None, typer.Option(min=0, help=THRESHOLD)] = None,
    parallel: Annotated[str | None, typer.Option(help=PARALLEL)] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the transformer's blocks, for long runs.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only print the estimated memory and time.")] = False,
) -> None:
    """Make a portrait, the speaker of a video, or a person from words speak; without options, the example portrait."""
    given = SimpleNamespace(**locals())
    inputs, outputs = check_files(given)
    with ending_promptly(outputs.state):
        make(given, inputs, outputs)


def make(given: SimpleNamespace, inputs: dict[str, Path | None], outputs: Outputs) -> None:
    """Check what the files hold, make the video and all that lies beside it."""
    started = time.perf_counter()
    picture, voice_n, settings = check_contents(given)
    if given.plan:
        return typer.echo(door.describe_costs(given.model, settings, len(voice_n), given.memory))
    credentials = door.read_credentials(given.sign_key, given.sign_cert)
    given.progress = Progress(quiet=rank() > 0)
    run = prepare_run(given, voice_n, settings, outputs)

    from skyreels_audio.rendering.run import animate, edit, write

    usual = {"face": "largest", "extend": "ping-pong", "landmarks": "mediapipe"}
    how = {name: getattr(given, name) or value for name, value in usual.items()} if given.video else {}
    with given.progress as progress:
        made = edit(given.video, **how, run=run) if given.video else animate(picture, run)
        if rank() > 0:  # the first process writes
            return None
        shown = write(made, given.output, given.audio, given.audio_codec, progress)
    if credentials is not None:
        credentials.sign(given.output, edited=given.video is not None)
    finish(run, made, inputs, outputs, shown, how, time.perf_counter() - started, given)


def check_files(given: SimpleNamespace) -> tuple[dict[str, Path | None], Outputs]:
    """Which files are read, by what they are, and which are written; the examples where nothing is given."""
    about_video = {"--face": given.face, "--extend": given.extend, "--landmarks": given.landmarks}
    about_video["--hybrid-steps"] = given.hybrid_steps
    against = {"--image": given.image, "--fps": given.fps, "--colour-strength": given.colour_strength}
    against["--size source"] = given.size if given.size == "source" else None
    door.check_together(given.video, given.audio, about_video, against)
    if given.image is None and given.video is None and given.prompt is None:
        given.image = bundled("examples/portrait.jpg")
    given.audio = given.audio or bundled("examples/voice.wav")
    door.check_prompt(given.prompt)
    inputs = {"image": given.image, "video": given.video, "audio": given.audio}
    outputs = Outputs.at(given.output, [path for path in inputs.values() if path is not None], given.report)
    given.model = given.model or bundled("weights/tiny")
    return inputs, outputs


def check_contents(given: SimpleNamespace) -> tuple["np.ndarray | None", "np.ndarray", "Settings"]:
    """The picture, the voice, and how to generate with the checkpoint; ``given.changes``: what is done to them."""
    from skyreels_audio.media import InputError, image_changes, plan_carriage, read_image

    voice = read_voice(given.audio)
    given.changes = {"audio": [*voice.changes, *plan_carriage(given.audio, given.audio_codec).changes]}
    picture = None if given.image is None else read_image(given.image, LONGEST_SIDE)
    if given.image is not None:
        given.changes["image"] = image_changes(given.image, LONGEST_SIDE)
    if given.video and given.size and door.moves_pixels(given.model):
        raise InputError(
            f"--size does not go with --video: {given.model} edits a face in the size that it was trained at."
        )
    width, height = door.choose_size(given.size, given.model, picture)
    settings = door.read_settings(
        given.model,
        num_inference_steps=given.steps,
        audio_guidance_scale=given.audio_guidance,
        text_guidance_scale=given.text_guidance,
        width=width,
        height=height,
        fps=frame_rate(given.video) if given.video else given.fps,
        motion=given.motion,
        fusion=given.fusion,
        hybrid_steps=given.hybrid_steps,
        colour_strength=0.0 if given.video else given.colour_strength,
    )
    return picture, voice.waveform_n, settings


def prepare_run(given: SimpleNamespace, voice_n: "np.ndarray", settings: "Settings", outputs: Outputs) -> "Run":
    """The run that is asked for, if this machine can do it."""
    from skyreels_audio.cli.checkpoint import check_classes, check_files

    door.check_device(given.device)
    acceleration = door.choose_acceleration(
        given.model,
        settings,
        cache=given.cache,
        threshold=given.cache_threshold,
        parallel=given.parallel,
        compile=given.compile,
        memory=given.memory,
        resume=given.resume,
    )
    check_files(given.model)
    check_classes(given.model)
    if not given.resume:
        outputs.state.unlink(missing_ok=True)

    from skyreels_audio.rendering.run import Run

    return Run(
        given.model,
        given.device,
        given.dtype,
        voice_n,
        given.prompt or "",
        settings,
        given.seed,
        outputs.state if acceleration.resumable else None,
        given.progress,
        given.memory,
        tuple(given.lora or ()),
        acceleration,
    )


def finish(
    run: "Run",
    made: Any,
    inputs: dict[str, Path | None],
    outputs: Outputs,
    shown: list["np.ndarray"],
    how: dict[str, str],
    seconds: float,
    given: SimpleNamespace,
) -> None:
    """Contact sheet and report beside the finished video, and what to say of them."""
    from skyreels_audio.generation.report import write_report
    from skyreels_audio.media import contact_sheet, write_image

    write_image(outputs.sheet, contact_sheet(shown, SHEET_COLUMNS), SHEET_NOTE)
    outputs.state.unlink(missing_ok=True)
    typer.echo(f"{outputs.video}: {made.num_frames / made.fps:.2f} s of video in {seconds:.1f} s")
    typer.echo(f"{outputs.sheet}: contact sheet")
    if how:
        typer.echo(f"{inputs['video']}: {made.kept} of {made.num_frames} frames keep their source")
    if given.report:
        changes, phases = given.changes | {"video": made.changes}, given.progress.seconds
        write_report(outputs.report, inputs, outputs.video, run.about | how, made.about, phases, changes)
        typer.echo(f"{outputs.report}: report")
