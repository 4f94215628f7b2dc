"""From a request and its checked files to a talking video: the one place where the app touches the pipeline."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from skyreels_audio.media import InputError, contact_sheet, image_changes, read_image, write_image
from skyreels_audio.rendering import LONGEST_SIDE, SHEET_NOTE
from skyreels_audio.rendering.inputs import frame_rate, read_voice
from skyreels_audio.rendering.run import Run, Video, animate, edit, write

Report = Callable[[str, int, int, np.ndarray | None], None]
"""Called with the phase, what is done of it, all of it, and sometimes the latest frame (uint8 HWC)."""

Preset = Literal["fast", "good", "best"]
Extend = Literal["ping-pong", "hold", "trim"]
FACE = r"^(largest|left|right|[0-9]{1,2})$"
# Of each preset: share of the checkpoint's denoising steps, and the most pixels of a picture (None: checkpoint's size).
PRESETS: dict[str, tuple[float, int | None]] = {
    "fast": (0.5, None),
    "good": (1.0, 512 * 512),
    "best": (1.0, 1024 * 1024),
}
SIDE_STEP = 32  # pixels; a multiple of the token's side of every checkpoint that draws pixels
PREVIEW_EVERY = 5  # frames
SHEET_COLUMNS = 6


class Request(BaseModel):
    """What may be asked for besides files; the same for the page and the API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(default="", max_length=1000, description="Who, in what mood, where. Alone it makes the person.")
    negative_prompt: str = Field(default="", max_length=1000, description="What to stay away from.")
    preset: Preset = Field(default="good", description="Speed against size.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="The same seed makes the same video.")
    motion: float = Field(default=1.0, ge=0, le=1, description="How much besides the mouth moves; 0: the mouth alone.")
    expression: float = Field(default=1.0, ge=1, le=10, description="Guidance by the words; 1 is off.")
    steps: int | None = Field(default=None, ge=1, le=100, description="Denoising steps; the preset's when left out.")
    face: str = Field(default="largest", pattern=FACE, description="Of a video: whom to edit.")
    extend: Extend = Field(default="ping-pong", description="Of a video shorter than the voice.")


@dataclass(frozen=True, eq=False)
class Loaded(Run):
    """A run of a pipeline that stays in its place."""

    pipe: Any = None
    negative_prompt: str = ""

    @contextmanager
    def ready(self) -> Iterator[Any]:
        from skyreels_audio.acceleration.accelerate import Acceleration, accelerated

        with accelerated(self.pipe, Acceleration(), self.settings):
            yield self.pipe

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"negative_prompt": self.negative_prompt}


class Phases:
    """Passes progress on, with the frame that is to be shown, and keeps the seconds of each phase."""

    def __init__(self, report: Report) -> None:
        self.report, self.frame = report, None
        self.started: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self.seconds[phase] = now - self.started.setdefault(phase, now)
        frame, self.frame = self.frame, None
        self.report(phase, done, total, frame)

    def previewed(self, frames: Iterator[Any]) -> Iterator[Any]:
        """The frames, some of which are shown."""
        for index, frame in enumerate(frames):
            if index % PREVIEW_EVERY == 0:
                self.frame = frame if isinstance(frame, np.ndarray) else frame.rgb()
            yield frame


class Renderer:
    """The pipeline of a checkpoint folder, loaded once. Raises InputError where it cannot be loaded."""

    def __init__(self, model: str, device: str) -> None:
        import torch

        from skyreels_audio import SkyReelsAudioPipeline

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.pipe: Any = SkyReelsAudioPipeline.from_pretrained(model).to(device)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{model} cannot be loaded: {str(error).splitlines()[0]}") from error
        self.model, self.device = Path(model), device

    def __call__(self, request: Request, inputs: dict[str, Path], folder: Path, report: Report) -> dict[str, Any]:
        """Write ``result.mp4``, ``sheet.png`` and ``report.json`` into ``folder``; return what is said of the video.

        Args:
            inputs: checked files by name: "voice", and "picture", "video" or neither.
            report: may raise, to stop.

        Raises:
            InputError: the files cannot be used together.
        """
        from skyreels_audio.generation.report import write_report

        phases: Any = Phases(report)
        output = folder / "result.mp4"
        made, changes = self._make(request, inputs, phases)
        shown = write(replace(made, frames=phases.previewed(made.frames)), output, inputs["voice"], "aac", phases)
        write_image(folder / "sheet.png", contact_sheet(shown, SHEET_COLUMNS), SHEET_NOTE)
        options = {"model": self.model.name} | request.model_dump()
        report_file = folder / "report.json"
        write_report(report_file, inputs, output, options, made.about, phases.seconds, changes)
        where = f"{inputs['voice'].parent}/"  # of this machine; a visitor need not know it
        report_file.write_text(report_file.read_text().replace(f"{folder}/", "").replace(where, ""))
        return {name: made.about[name] for name in ("num_frames", "width", "height", "fps", "untouched")}

    def _make(self, request: Request, inputs: dict[str, Path], phases: Phases) -> tuple[Video, dict[str, list[str]]]:
        """Frames on their way, and what was done to each of the inputs."""
        voice = read_voice(inputs["voice"])
        changes = {"voice": voice.changes}
        picture, rate = None, {}
        if "picture" in inputs:
            picture = read_image(inputs["picture"], LONGEST_SIDE)
            changes["picture"] = image_changes(inputs["picture"], LONGEST_SIDE)
        if "video" in inputs:
            rate = {"fps": frame_rate(inputs["video"]), "colour_strength": 0.0}
        share, pixels = PRESETS[request.preset]
        own = self.pipe.settings()
        height, width = self._size(picture, pixels, own)
        settings = self.pipe.settings(
            num_inference_steps=request.steps or max(1, math.ceil(own.num_inference_steps * share)),
            text_guidance_scale=request.expression if request.expression > 1 else None,
            motion=request.motion,
            height=height,
            width=width,
            **rate,
        )
        how: Any = {"negative_prompt": request.negative_prompt, "progress": phases, "state": None, "pipe": self.pipe}
        how |= {"model": self.model, "device": self.device, "dtype": str(self.pipe.dtype)}
        run = Loaded(voice_n=voice.waveform_n, prompt=request.prompt, settings=settings, seed=request.seed, **how)
        if "video" not in inputs:
            return animate(picture, run), changes
        made = edit(inputs["video"], request.face, request.extend, "mediapipe", run)
        return made, changes | {"video": made.changes}

    def _size(self, picture: np.ndarray | None, pixels: int | None, own: Any) -> tuple[int, int]:
        """Height and width: the shape of the picture, no larger than it is, in multiples of a token's side."""
        if pixels is None or picture is None:
            return own.height, own.width
        step = 2 if self.pipe.moves_pixels else SIDE_STEP
        height, width = picture.shape[:2]
        scale = min(1.0, math.sqrt(pixels / (height * width)))
        height, width = (max(step, round(side * scale / step) * step) for side in (height, width))
        return height, width


def look_at_picture(path: Path) -> dict[str, Any]:
    """What will happen to a picture: size, faces, and of the largest its box and the region that will move (xyxy)."""
    from skyreels_audio.faces import detect_faces, lower_face_box

    picture = read_image(path)
    faces = detect_faces(picture)
    found: dict[str, Any] = {"width": picture.shape[1], "height": picture.shape[0], "faces": len(faces)}
    if faces:
        found["face"] = _numbers(faces[0].box_xyxy)
        found["region"] = _numbers(lower_face_box(faces[0].landmarks))
    return found


def look_at_video(path: Path, seconds: float, face: str, target: str) -> dict[str, Any]:
    """What will happen to the first ``seconds`` of a video: faces, who is followed, which stretches keep their source.

    The first frame that is edited is written to ``target``.
    """
    from skyreels_audio.generation.edit_plan import plan_edit
    from skyreels_audio.generation.editing import frames_at

    plan = plan_edit(path, seconds, (256, 256), face, "trim")
    first = next(frames_at(plan.path, plan.info, plan.order[plan.start : plan.start + 1]))
    write_image(target, first.rgb())
    return {
        "width": first.size[1],
        "height": first.size[0],
        "faces": plan.speakers,
        "face": plan.speaker,
        "frames": len(plan.order),
        "fps": plan.info.fps,
        "kept": plan.untouched,
    }


def _numbers(box: np.ndarray) -> list[float]:
    return [round(float(value), 1) for value in box]
