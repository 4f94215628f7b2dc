"""From what was given to frames: a picture or words animated, a video edited; and from frames to a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from skyreels_audio.media import AudioCodec, Colour, InputError, StoredFrame, VideoWriter
from skyreels_audio.rendering.libraries import silence_libraries

if TYPE_CHECKING:
    import torch

    from skyreels_audio.acceleration.accelerate import Acceleration
    from skyreels_audio.acceleration.offload import MemoryMode
    from skyreels_audio.generation.inputs import Progress
    from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
    from skyreels_audio.generation.settings import Settings

SHEET_FRAMES, SHEET_SIDE = 12, 1024  # of a contact sheet: how many, and pixels of the longer side of each at most


@dataclass(frozen=True, eq=False)
class Run:
    """A checkpoint and how to run it. ``state`` is the file that an interrupted run goes on from, None if it cannot."""

    model: Path
    device: str
    dtype: str
    voice_n: np.ndarray
    prompt: str
    settings: "Settings"
    seed: int
    state: Path | None
    progress: "Progress"
    memory: "MemoryMode" = "fast"
    loras: tuple[str, ...] = ()
    acceleration: "Acceleration | None" = None

    @contextmanager
    def ready(self) -> Iterator["SkyReelsAudioPipeline"]:
        """The checkpoint in its place, as fast as asked for. Of several processes each comes out with the whole video.

        Raises InputError where the device cannot be used.
        """
        import torch

        from skyreels_audio.acceleration.accelerate import Acceleration, accelerated
        from skyreels_audio.acceleration.distributed import process_group

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        with process_group(device) as place:
            pipe = self.load(place)
            with accelerated(pipe, self.acceleration or Acceleration(), self.settings):
                yield pipe

    def load(self, device: "torch.device") -> "SkyReelsAudioPipeline":
        """Load the checkpoint. Raises InputError where the device cannot be used."""
        self.progress("load", 0, 1)
        import torch
        from safetensors import SafetensorError

        from skyreels_audio import SkyReelsAudioPipeline
        from skyreels_audio.acceleration.offload import apply_memory_mode
        from skyreels_audio.generation.lora import load_loras
        from skyreels_audio.generation.pipeline import fast_dtype

        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from None
        silence_libraries()
        dtype = fast_dtype(device.type) if self.dtype == "auto" else getattr(torch, self.dtype)
        try:
            pipe = SkyReelsAudioPipeline.from_pretrained(str(self.model), dtype=dtype)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{self.model} cannot be loaded: {str(error).splitlines()[0]}") from error
        load_loras(pipe, self.loras)
        apply_memory_mode(pipe, self.memory, device)
        self.progress("load", 1, 1)
        return pipe

    @property
    def options(self) -> dict[str, Any]:
        """Of a call of the pipeline, besides pictures and voice."""
        import torch

        return {
            "prompt": self.prompt,
            "settings": self.settings,
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
class Video:
    """Frames on their way, and what to write them as. ``faces`` and ``untouched`` are for the report."""

    frames: Iterator[np.ndarray | StoredFrame]
    num_frames: int
    width: int
    height: int
    fps: float
    sound_seconds: float | None = None
    crf: int = 16
    colour: Colour = field(default_factory=Colour)
    faces: dict[str, Any] = field(default_factory=dict)
    untouched: list[dict[str, Any]] = field(default_factory=list)
    aspect: Fraction = Fraction(1)
    shots: list[dict[str, Any]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """How many frames keep their source."""
        return sum(span["last"] + 1 - span["first"] for span in self.untouched)

    @property
    def about(self) -> dict[str, Any]:
        """What a report says of the video."""
        names = ("num_frames", "width", "height", "fps", "faces", "shots", "untouched")
        return {name: getattr(self, name) for name in names}


def animate(picture: np.ndarray | None, run: Run) -> Video:
    """A portrait, or without one the person that the prompt describes, speaks."""
    settings = run.settings
    try:
        with run.ready() as pipe:
            output = pipe(picture, run.voice_n, **run.options)
    except ValueError as error:  # what only the loaded model knows, or a state of another run
        raise InputError(str(error)) from error
    size = settings.width, settings.height
    return Video(output.frames, output.num_frames, *size, settings.fps, faces=output.faces)


def edit(path: Path, face: str, extend: Any, landmarks: str, run: Run) -> Video:
    """The speaker of a video speaks with the voice; all else of it stays."""
    from skyreels_audio.generation.edit_plan import plan_edit
    from skyreels_audio.generation.editing import CRF, edit_video
    from skyreels_audio.media import SAMPLE_RATE

    size = run.settings.height, run.settings.width
    seconds = len(run.voice_n) / SAMPLE_RATE
    try:
        plan = plan_edit(path, seconds, size, face, extend, landmarks, run.progress)
    except (ValueError, ImportError, OSError) as error:  # OSError: landmark weights that cannot be fetched
        raise InputError(str(error)) from error
    try:
        with run.ready() as pipe:
            edited = edit_video(pipe, plan, run.voice_n, **run.options)
    except ValueError as error:
        raise InputError(str(error)) from error
    first = next(edited.frames)
    height, width = first.size
    return Video(
        frames=chain([first], edited.frames),
        num_frames=edited.num_frames,
        width=width,
        height=height,
        fps=edited.fps,
        sound_seconds=edited.num_frames / edited.fps,
        crf=CRF,
        colour=first.colour,
        faces={"found": plan.speakers, "chosen": plan.speaker, "in_frame": plan.start},
        untouched=edited.plan.untouched,
        aspect=plan.info.aspect,
        shots=plan.shots,
        changes=plan.changes,
    )


def write(video: Video, output: Path, audio: Path, audio_codec: AudioCodec, progress: "Progress") -> list[np.ndarray]:
    """Write the frames as they are decoded; return some of them, evenly spaced, the first and the last included."""
    count = min(SHEET_FRAMES, video.num_frames)
    wanted = {round(index * (video.num_frames - 1) / max(1, count - 1)) for index in range(count)}
    shown = []
    size = video.width, video.height
    sound = audio, video.sound_seconds
    stored: dict[str, Any] = {"crf": video.crf, "colour": video.colour, "aspect": video.aspect}
    with VideoWriter(output, *size, video.fps, *sound, audio_codec=audio_codec, **stored) as writer:
        for index, frame in enumerate(video.frames):
            writer.write(frame)
            if index in wanted:
                shown.append(_small(frame if isinstance(frame, np.ndarray) else frame.rgb()))
            progress("write", index + 1, video.num_frames)
    return shown


def _small(frame_HWC: np.ndarray) -> np.ndarray:
    """The frame, reduced if it is larger than a contact sheet needs: twelve of 4K are 100 megapixels, and memory."""
    picture = Image.fromarray(frame_HWC)
    picture.thumbnail((SHEET_SIDE, SHEET_SIDE))
    return np.asarray(picture)
