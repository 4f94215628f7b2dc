"""A protocol's set of cases, cut from a folder of videos that a person has downloaded."""

import hashlib
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from skyreels_audio import faces, media
from skyreels_audio.evaluation.cases import Case, write_cases
from skyreels_audio.evaluation.protocol import Protocol
from skyreels_audio.media.files import replacing, writing

RATE = 16000
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")


def prepare(
    videos: Path,
    out: Path,
    protocol: Protocol,
    progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> tuple[list[Case], dict[str, str]]:
    """Cut ``protocol.clips`` clips, drawn by the protocol's seed, and write them as a reference folder.

    Of each video its first ``protocol.frames`` frames: NAME.mp4 (the truth, with its sound), NAME.png (its first frame)
    and NAME.wav. Videos that are too short, silent, broken or without a face give way to the next drawn. What is there
    already is kept. Returns the cases, and of each video passed over why. Raises InputError if no video serves.
    """
    paths = sorted(path for path in videos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise media.InputError(f"{videos} holds no videos ({', '.join(SUFFIXES)}).")
    out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(protocol.seed).permutation(len(paths))
    cases: list[Case] = []
    passed: dict[str, str] = {}
    for index in order:
        path = paths[index]
        name = "-".join(path.relative_to(videos).with_suffix("").parts)
        case = Case(name, out / f"{name}.mp4", out / f"{name}.wav", out / f"{name}.png")
        try:
            if not (case.truth and case.truth.exists()):
                _cut(path, case, protocol)
        except ValueError as error:
            passed[str(path.relative_to(videos))] = str(error)
            continue
        cases.append(case)
        progress("prepare", len(cases), min(protocol.clips, len(paths)))
        if len(cases) == protocol.clips:
            break
    if not cases:
        first = next(iter(passed.items()))
        raise media.InputError(f"No video in {videos} serves: {first[0]}: {first[1]}")
    write_cases(out, sorted(cases, key=lambda case: case.name), protocol=protocol.model_dump(), files=_hashes(cases))
    return cases, passed


def _cut(path: Path, case: Case, protocol: Protocol) -> None:
    """The picture and the sound first, the video last: where it is, all three are."""
    assert case.truth is not None and case.voice is not None and case.portrait is not None
    frames = []
    for frame in media.read_video(path, protocol.fps):
        frames.append(frame)
        if len(frames) == protocol.frames:
            break
    if len(frames) < protocol.frames:
        raise ValueError(f"it has {len(frames)} of {protocol.frames} frames")
    sound_n = media.read_audio(path, RATE)[: round(protocol.frames / protocol.fps * RATE)]
    width, height = protocol.width, protocol.height
    box = (0.0, 0.0, float(frames[0].shape[1]), float(frames[0].shape[0]))
    if protocol.crop == "face":
        found = faces.detect_faces(frames[0])
        if not found:
            raise ValueError("its first frame shows no face")
        box = faces.portrait_crop(frames[0], found[0], (height, width))
    cut = [Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box=box) for frame in frames]
    media.write_image(case.portrait, np.asarray(cut[0]))
    write_sound(case.voice, sound_n)
    with media.VideoWriter(case.truth, width, height, protocol.fps, case.voice, comment="cut for evaluation") as writer:
        for picture in cut:
            writer.write(np.asarray(picture))


def write_sound(path: Path, sound_n: np.ndarray) -> None:
    """Mono at 16 kHz, 16 bits."""
    with writing(path), replacing(path) as partial, wave.open(str(partial), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(sound_n, -1, 1) * 32767).astype(np.int16).tobytes())


def _hashes(cases: list[Case]) -> dict[str, str]:
    """So that two people can tell whether they have the same set."""
    return {case.truth.name: hashlib.sha256(case.truth.read_bytes()).hexdigest() for case in cases if case.truth}
