"""The ways from what was given to frames: a picture or words animated, a video edited."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from skyreels_audio.cli.progress import Progress
from skyreels_audio.faces import detect_faces, portrait_crop
from skyreels_audio.media import Colour, InputError, StoredFrame, VideoWriter

if TYPE_CHECKING:
    import torch

    from skyreels_audio.generation.acceleration import Acceleration
    from skyreels_audio.generation.memory import MemoryMode
    from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
    from skyreels_audio.generation.settings import Settings

SHEET_FRAMES = 12


@dataclass(frozen=True, eq=False)
class Run:
    """What every way needs. ``state`` is the file that an interrupted run goes on from, None if it cannot."""

    model: Path
    device: str
    dtype: str
    voice_n: np.ndarray
    prompt: str
    settings: "Settings"
    seed: int
    state: Path | None
    progress: Progress
    memory: "MemoryMode" = "fast"
    loras: tuple[str, ...] = ()
    acceleration: "Acceleration | None" = None

    @contextmanager
    def ready(self) -> Iterator[tuple["SkyReelsAudioPipeline", dict[str, Any]]]:
        """The checkpoint in its place, and options of a call of it besides pictures, voice, size and frame rate.

        Of several processes each comes out with the whole video. Raises InputError where the device cannot be used.
        """
        import torch

        from skyreels_audio.generation.acceleration import Acceleration, accelerated
        from skyreels_audio.generation.parallel import process_group

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        with process_group(device) as place:
            pipe = self.pipe(place)
            with accelerated(pipe, self.acceleration or Acceleration(), self.settings) as arrange:
                yield pipe, self.options() | {"arrange": arrange}

    def pipe(self, device: "torch.device") -> "SkyReelsAudioPipeline":
        """Load the checkpoint. Raises InputError where the device cannot be used."""
        self.progress("load", 0, 1)
        import diffusers
        import torch
        import transformers
        from safetensors import SafetensorError

        from skyreels_audio import SkyReelsAudioPipeline
        from skyreels_audio.generation.lora import load_loras
        from skyreels_audio.generation.memory import apply_memory_mode

        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from None
        dtype = self.dtype
        if dtype == "auto":
            fast = device.type != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16")
            dtype = "bfloat16" if fast else "float32"
        for library in (diffusers.utils.logging, transformers.utils.logging):  # theirs would cut through our own bars
            library.set_verbosity_error()
            library.disable_progress_bar()
        try:
            pipe = SkyReelsAudioPipeline.from_pretrained(str(self.model), dtype=getattr(torch, dtype))
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{self.model} cannot be loaded: {str(error).splitlines()[0]}") from error
        load_loras(pipe, self.loras)
        apply_memory_mode(pipe, self.memory, device)
        self.progress("load", 1, 1)
        return pipe

    def options(self) -> dict[str, Any]:
        """Of a call of the pipeline, besides size and frame rate."""
        import torch

        names = ("num_inference_steps", "audio_guidance_scale", "text_guidance_scale", "fusion", "hybrid_steps")
        return {name: getattr(self.settings, name) for name in names} | {
            "prompt": self.prompt,
            "generator": torch.Generator("cpu").manual_seed(self.seed),  # the same noise on every device
            "progress": self.progress,
            "resume": self.state,
        }

    @property
    def about(self) -> dict[str, Any]:
        """What a report says of the run."""
        names = ("model", "prompt", "seed", "device", "dtype")
        how = {} if self.acceleration is None else asdict(self.acceleration)
        return {name: getattr(self, name) for name in names} | asdict(self.settings) | how


@dataclass(frozen=True, eq=False)
class Take:
    """Frames on their way, and what to write them as. ``faces`` and ``untouched`` are for the report."""

    frames: Iterator[np.ndarray | StoredFrame]
    num_frames: int
    width: int
    height: int
    fps: float
    sound_seconds: float | None = None
    crf: int = 17
    colour: Colour = field(default_factory=Colour)
    faces: dict[str, Any] = field(default_factory=dict)
    untouched: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """How many frames keep their source."""
        return sum(span["last"] + 1 - span["first"] for span in self.untouched)

    @property
    def about(self) -> dict[str, Any]:
        """What a report says of the video."""
        return {name: getattr(self, name) for name in ("num_frames", "width", "height", "fps", "faces", "untouched")}


def animate(picture: np.ndarray | None, name: str, run: Run) -> Take:
    """A portrait, or without one the person that the prompt describes, speaks."""
    settings, portrait, faces = run.settings, None, {}
    if picture is not None:
        portrait, faces = crop_portrait(picture, name, run)
    size = {"height": settings.height, "width": settings.width, "fps": settings.fps}
    try:
        with run.ready() as (pipe, options):
            output = pipe(portrait, run.voice_n, **size, colour_strength=settings.colour_strength, **options)
    except ValueError as error:  # what only the loaded model knows, or a state of another run
        raise InputError(str(error)) from error
    return Take(output.frames, output.num_frames, settings.width, settings.height, settings.fps, faces=faces)


def edit(path: Path, face: str, extend: Any, landmarks: str, run: Run) -> Take:
    """The speaker of a video speaks with the voice; all else of it stays."""
    from skyreels_audio.generation.editing import CRF, edit_video, plan_edit
    from skyreels_audio.media import SAMPLE_RATE

    size = run.settings.height, run.settings.width
    seconds = len(run.voice_n) / SAMPLE_RATE
    try:
        plan = plan_edit(path, seconds, size, face, extend, landmarks, run.progress)
    except (ValueError, ImportError, OSError) as error:  # OSError: landmark weights that cannot be fetched
        raise InputError(str(error)) from error
    try:
        with run.ready() as (pipe, options):
            edited = edit_video(pipe, plan, run.voice_n, **options)
    except ValueError as error:
        raise InputError(str(error)) from error
    first = next(edited.frames)
    height, width = first.size
    return Take(
        frames=_before(first, edited.frames),
        num_frames=edited.num_frames,
        width=width,
        height=height,
        fps=edited.fps,
        sound_seconds=edited.num_frames / edited.fps,
        crf=CRF,
        colour=first.colour,
        faces={"found": plan.speakers, "chosen": plan.speaker, "in_frame": plan.start},
        untouched=plan.untouched,
    )


def write(take: Take, output: Path, audio: Path, progress: Progress) -> list[np.ndarray]:
    """Write the frames as they are decoded; return some of them, evenly spaced, the first and the last included."""
    count = min(SHEET_FRAMES, take.num_frames)
    wanted = {round(index * (take.num_frames - 1) / max(1, count - 1)) for index in range(count)}
    shown = []
    size = take.width, take.height
    sound = audio, take.sound_seconds
    with VideoWriter(output, *size, take.fps, *sound, crf=take.crf, colour=take.colour) as writer:
        for index, frame in enumerate(take.frames):
            writer.write(frame)
            if index in wanted:
                shown.append(frame if isinstance(frame, np.ndarray) else frame.rgb())
            progress("write", index + 1, take.num_frames)
    return shown


def _before(first: StoredFrame, frames: Iterator[StoredFrame]) -> Iterator[StoredFrame]:
    yield first
    yield from frames


def crop_portrait(picture: np.ndarray, name: str, run: Run) -> tuple[np.ndarray, dict[str, Any]]:
    """``picture`` cut around its largest face as the pictures of training are, at the size of the video."""
    settings = run.settings
    found = detect_faces(picture)
    face = next(iter(found), None)
    if face is None:
        run.progress.warn(f"no face found in {name}; going on with the whole frame.")
    box = portrait_crop(picture, face, (settings.height, settings.width))
    size = settings.width, settings.height
    faces = {
        "found": len(found),
        "chosen": None if face is None else [round(float(value), 1) for value in face.box_xyxy],
        "crop": [round(value, 1) for value in box],
    }
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS, box=box)), faces
