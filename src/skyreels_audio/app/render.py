"""From a request and its checked files to a talking video: the one place where the app touches the pipeline."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from skyreels_audio.media import InputError, VideoWriter, contact_sheet, read_audio, read_image, write_image

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
SIDE_STEP = 32  # pixels; a multiple of the token's side of every checkpoint
PREVIEW_EVERY = 5  # frames
SHEET_FRAMES, SHEET_COLUMNS = 12, 6


class Request(BaseModel):
    """What may be asked for besides files; the same for the page and the API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(default="", max_length=1000, description="Who, in what mood, where. Alone it makes the person.")
    negative_prompt: str = Field(default="", max_length=1000, description="What to stay away from.")
    preset: Preset = Field(default="good", description="Speed against size.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="The same seed makes the same video.")
    motion: float = Field(default=1.0, ge=0, le=2, description="How far the voice moves the mouth; 1 as trained.")
    expression: float = Field(default=1.0, ge=1, le=10, description="Guidance by the words; 1 is off.")
    steps: int | None = Field(default=None, ge=1, le=100, description="Denoising steps; the preset's when left out.")
    face: str = Field(
        default="largest", pattern=r"^(largest|left|right|[0-9]{1,2})$", description="Of a video: whom to edit."
    )
    extend: Literal["ping-pong", "hold", "trim"] = Field(
        default="ping-pong", description="Of a video shorter than the voice."
    )


@dataclass(frozen=True, eq=False)
class Made:
    """Frames on their way, and what to write them as. ``untouched``: stretches that keep their source."""

    frames: Iterator[Any]
    num_frames: int
    width: int
    height: int
    fps: float
    sound_seconds: float | None = None
    crf: int = 17
    colour: Any = None
    aspect: Fraction = Fraction(1)
    untouched: list[dict[str, Any]] = field(default_factory=list)

    @property
    def about(self) -> dict[str, Any]:
        """What a report says of the video."""
        return {name: getattr(self, name) for name in ("num_frames", "width", "height", "fps", "untouched")}


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
        self.model = model

    def __call__(self, request: Request, inputs: dict[str, Path], folder: Path, report: Report) -> dict[str, Any]:
        """Write ``result.mp4``, ``sheet.png`` and ``report.json`` into ``folder``; return what is said of the video.

        Args:
            inputs: checked files by name: "voice", and "picture", "video" or neither.
            report: may raise, to stop.

        Raises:
            InputError: the files cannot be used together.
        """
        from skyreels_audio.generation.report import write_report

        started: dict[str, float] = {}
        seconds: dict[str, float] = {}

        def timed(phase: str, done: int, total: int, frame: np.ndarray | None = None) -> None:
            now = time.perf_counter()
            seconds[phase] = now - started.setdefault(phase, now)
            report(phase, done, total, frame)

        made = self._make(request, inputs, timed)
        output, shown = folder / "result.mp4", []
        wanted = set(np.linspace(0, made.num_frames - 1, SHEET_FRAMES).round().astype(int).tolist())
        sound = inputs["voice"], made.sound_seconds
        how: dict[str, Any] = {"crf": made.crf, "aspect": made.aspect}
        how |= {} if made.colour is None else {"colour": made.colour}
        with VideoWriter(output, made.width, made.height, made.fps, *sound, **how) as writer:
            for index, frame in enumerate(made.frames):
                writer.write(frame)
                preview = index % PREVIEW_EVERY == 0
                picture = _rgb(frame) if preview or index in wanted else None
                if index in wanted:
                    shown.append(picture)
                timed("write", index + 1, made.num_frames, picture if preview else None)
        write_image(folder / "sheet.png", contact_sheet(shown, SHEET_COLUMNS))
        options = {"model": Path(self.model).name} | request.model_dump()
        report_file = folder / "report.json"
        write_report(report_file, inputs, output, options, made.about, seconds)
        where = f"{inputs['voice'].parent}/"  # of this machine; a visitor need not know it
        report_file.write_text(report_file.read_text().replace(f"{folder}/", "").replace(where, ""))
        return made.about

    def _make(self, request: Request, inputs: dict[str, Path], report: Callable[[str, int, int], None]) -> "Made":
        import torch

        voice_n = read_audio(inputs["voice"])

        share, pixels = PRESETS[request.preset]
        own = self.pipe.settings()
        options: dict[str, Any] = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "num_inference_steps": request.steps or max(1, math.ceil(own.num_inference_steps * share)),
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            "progress": report,
        }
        if getattr(self.pipe, "moves_pixels", False):
            options["motion"] = min(request.motion, 1.0)
        elif isinstance(own.audio_guidance_scale, int | float):
            options["audio_guidance_scale"] = 1 + (own.audio_guidance_scale - 1) * request.motion
        if request.expression > 1:
            options["text_guidance_scale"] = request.expression
        if "video" in inputs:
            return self._edited(request, inputs["video"], voice_n, options)
        picture = read_image(inputs["picture"]) if "picture" in inputs else None
        height, width = self._size(picture, pixels, own)
        try:
            output = self.pipe(picture, voice_n, height=height, width=width, **options)
        except ValueError as error:
            raise InputError(str(error)) from error
        return Made(output.frames, output.num_frames, width, height, output.fps)

    def _edited(self, request: Request, video: Path, voice_n: np.ndarray, options: dict[str, Any]) -> "Made":
        from skyreels_audio.generation.edit_plan import plan_edit
        from skyreels_audio.generation.editing import CRF, edit_video

        own, seconds = self.pipe.settings(), len(voice_n) / 16_000
        try:
            size, progress = (own.height, own.width), options["progress"]
            plan = plan_edit(video, seconds, size, request.face, request.extend, progress=progress)
            edited = edit_video(self.pipe, plan, voice_n, **options)
        except ValueError as error:
            raise InputError(str(error)) from error
        frames = iter(edited.frames)
        first = next(frames)
        return Made(
            frames=chain([first], frames),
            num_frames=edited.num_frames,
            width=first.size[1],
            height=first.size[0],
            fps=edited.fps,
            sound_seconds=edited.num_frames / edited.fps,
            crf=CRF,
            colour=first.colour,
            aspect=plan.info.aspect,
            untouched=plan.untouched,
        )

    def _size(self, picture: np.ndarray | None, pixels: int | None, own: Any) -> tuple[int, int]:
        """Height and width: the shape of the picture, no larger than it is, in multiples of a token's side."""
        if pixels is None or picture is None:
            return own.height, own.width
        height, width = picture.shape[:2]
        scale = min(1.0, math.sqrt(pixels / (height * width)))
        height, width = (max(SIDE_STEP, round(side * scale / SIDE_STEP) * SIDE_STEP) for side in (height, width))
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
        "kept": [span for span in plan.untouched if span["reason"] != "reference frame"],
    }


def _rgb(frame: Any) -> np.ndarray:
    return frame if isinstance(frame, np.ndarray) else frame.rgb()


def _numbers(box: np.ndarray) -> list[float]:
    return [round(float(value), 1) for value in box]
