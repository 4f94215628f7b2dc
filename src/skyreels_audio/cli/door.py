"""What ``generate`` is given, checked before anything costs time. Every mistake raises ``InputError``."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_type_hints

from skyreels_audio.acceleration.ranks import local_world_size, world_size
from skyreels_audio.cli.options import parse_size

if TYPE_CHECKING:
    import numpy as np

    from skyreels_audio.acceleration.accelerate import Acceleration, Cache
    from skyreels_audio.acceleration.offload import MemoryMode
    from skyreels_audio.cli.credentials import Credentials
    from skyreels_audio.generation.settings import Settings

USUAL_SIDE = 1024  # pixels of the longer side of what is animated, where nobody asks for more


def check_together(video: Path | None, audio: Path | None, only: dict[str, Any], never: dict[str, Any]) -> None:
    """``only`` are options that need --video, ``never`` those that contradict it; by name, None if not given."""
    from skyreels_audio.media import InputError

    wrong = next((name for name, value in (only if video is None else never).items() if value is not None), None)
    if wrong is not None and video is None:
        raise InputError(f"{wrong} is about the video to edit; give that with --video.")
    if wrong is not None:
        raise InputError(f"{wrong} cannot be combined with --video, which brings its own.")
    if video is not None and audio is None:
        raise InputError("--video needs --audio, the voice its speaker shall speak with (it may be the video itself).")


def check_prompt(prompt: str | None) -> None:
    """A terminal may give bytes that are no text."""
    from skyreels_audio.media import InputError

    try:
        (prompt or "").encode()
    except UnicodeEncodeError:
        raise InputError("--prompt is not text: some of its bytes are no UTF-8.") from None


def read_settings(model: Path, **given: Any) -> "Settings":
    """What is given (not None), else what the checkpoint says, else the defaults."""
    from skyreels_audio.cli.checkpoint import check_values, components, read_object
    from skyreels_audio.media import InputError

    components(model)
    index = model / "model_index.json"
    fps = given.get("fps")
    if fps is not None and not 1 <= fps <= 120:
        raise InputError(f"--fps must be from 1 to 120, not {fps:g}.")
    from skyreels_audio.generation.settings import Settings

    defaults = read_object(index).get("generation_defaults", {})
    if not isinstance(defaults, dict):
        raise InputError(f"{index}: generation_defaults is not an object of settings.")
    check_values(index, defaults, get_type_hints(Settings), "generation_defaults")
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**{**defaults, **given})
    except ValueError as error:
        raise InputError(str(error)) from error


def describe_costs(model: Path, settings: "Settings", samples: int, memory: "MemoryMode") -> str:
    """What ``generate`` will need on a GPU, from the configuration files alone."""
    from skyreels_audio.acceleration.estimate import ModelShape, estimate
    from skyreels_audio.media import SAMPLE_RATE

    frames = math.ceil(samples / SAMPLE_RATE * settings.fps)
    needs = estimate(
        ModelShape.read(model),
        settings.height,
        settings.width,
        frames,
        memory,
        steps=settings.num_inference_steps,
        branches=settings.branches,
        window=settings.window,
        overlap=settings.overlap,
    )
    return f"{settings.width}x{settings.height}, {frames} frames, {memory}: {needs} (an H100; estimated)."


def choose_size(text: str | None, model: Path, picture: "np.ndarray | None") -> tuple[int | None, int | None]:
    """Width and height in pixels that --size asks for; None: the checkpoint's.

    "source" is the shape of the picture with as many pixels as the checkpoint's own size has. A checkpoint that moves
    the picture's own pixels keeps its size: without --size up to ``USUAL_SIDE``, with "source" always.
    """
    from skyreels_audio.media import InputError

    if text in (None, "source") and picture is not None and moves_pixels(model):
        height, width = picture.shape[:2]
        scale = 1.0 if text else min(1.0, USUAL_SIDE / max(height, width))
        return tuple(max(round(scale * side / 2), 1) * 2 for side in (width, height))  # pyright: ignore[reportReturnType]
    if text is None:
        return None, None
    if text != "source":
        return parse_size(text, _side_step(model))
    if picture is None:
        raise InputError("--size source is the shape of a picture; without --image there is none.")
    settings = read_settings(model)
    step = _side_step(model)
    aspect = picture.shape[1] / picture.shape[0]
    width = (settings.width * settings.height * aspect) ** 0.5
    sides = width, width / aspect
    return tuple(max(round(side / step), 1) * step for side in sides)  # pyright: ignore[reportReturnType]


def moves_pixels(model: Path) -> bool:
    """Whether the checkpoint's latents are the motion of a picture, of any size."""
    from skyreels_audio.cli.checkpoint import components

    return components(model).get("vae", ("", ""))[1] == "MotionAutoencoder"


def read_credentials(key: Path | None, certificates: Path | None) -> "Credentials | None":
    """Whose signature the video gets, if --sign-key and --sign-cert are given."""
    from skyreels_audio.media import InputError

    if key is None and certificates is None:
        return None
    if key is None or certificates is None:
        raise InputError("--sign-key and --sign-cert are given together: a private key and its certificate chain.")
    from skyreels_audio.cli.credentials import Credentials

    return Credentials.load(key, certificates)


def check_device(device: str) -> None:
    """Whether there is such a device, and under torchrun one for each process."""
    import torch

    from skyreels_audio.media import InputError

    try:
        kind = torch.device("cpu" if device == "auto" else device)
    except RuntimeError as error:
        raise InputError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from None
    if world_size() == 1:
        return
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {kind} cannot be shared by processes; under torchrun it is auto, cpu or cuda.")
    here, gpus = local_world_size(), torch.cuda.device_count()
    if device != "cpu" and gpus and gpus < here:
        raise InputError(f"torchrun started {here} processes on a machine with {gpus} GPUs; start one for each GPU.")


def choose_acceleration(
    model: Path,
    settings: "Settings",
    cache: "Cache",
    threshold: float | None,
    parallel: str | None,
    compile: bool,
    memory: "MemoryMode",
    resume: bool,
) -> "Acceleration":
    """What --cache, --parallel and --compile ask for, if it can be done with the checkpoint and together."""
    from skyreels_audio.acceleration.accelerate import PAPER_THRESHOLD, Acceleration
    from skyreels_audio.media import InputError

    if threshold is not None and cache != "teacache":
        raise InputError("--cache-threshold is TeaCache's; give it with --cache teacache.")
    if threshold is None:
        threshold = PAPER_THRESHOLD
    acceleration = Acceleration(cache, threshold, memory != "fast", parallel, compile)
    if resume and not acceleration.resumable:
        raise InputError("--resume cannot be combined with --cache: what a cache keeps is lost when a run ends.")
    needed = cache == "teacache" or parallel is not None
    config = SimpleNamespace(**_component(model, "transformer")) if needed else None
    try:
        acceleration.check(settings, config, world_size())
    except ValueError as error:
        raise InputError(str(error)) from error
    return acceleration


def _side_step(model: Path) -> int:
    """Width and height are multiples of this many pixels: a token of the transformer, or what a codec wants."""
    from skyreels_audio.media import InputError

    patch = _component(model, "transformer").get("patch_size")
    if not (isinstance(patch, list) and len(patch) == 3 and all(isinstance(side, int) and side > 0 for side in patch)):
        where = model / "transformer" / "config.json"
        raise InputError(f"{where}: patch_size must be three whole numbers, not {json.dumps(patch)}.")
    factor = _component(model, "vae").get("scale_factor_spatial", 8)  # as AutoencoderKLWan has it
    if not isinstance(factor, int) or factor < 1:
        where = model / "vae" / "config.json"
        raise InputError(f"{where}: scale_factor_spatial must be a whole number, not {json.dumps(factor)}.")
    return 2 if moves_pixels(model) else factor * patch[1]


def _component(model: Path, name: str) -> dict[str, Any]:
    """The configuration of a part of a checkpoint."""
    from skyreels_audio.cli.checkpoint import read_object
    from skyreels_audio.media import InputError

    try:
        return read_object(model / name / "config.json")
    except InputError as error:
        raise InputError(f"{model} is not a checkpoint: {error}") from None
