"""A plain folder of videos → a manifest: spans, the speaker's landmarks, how well lips and sound agree.

Curation judges and selects; this only looks. It is for footage that is known to be fit: one speaker, no cuts.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from skyreels_audio import faces, media
from skyreels_audio.media import SAMPLE_RATE, InputError
from skyreels_audio.training.manifest import (
    LABEL_FPS,
    ManifestRow,
    file_hash,
    label_frames,
    read_manifest,
    write_manifest,
)

JUDGED = 50
"""Frames that our sync expert must see to judge a clip."""
SURE = 0.2
"""Its confidence from which an offset is believed."""
VIDEO_TYPES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg"}


@dataclass(frozen=True)
class Told:
    """What the person says of all videos of a folder. A text file beside a video (``clip.txt``) is its own caption."""

    caption: str = ""
    language: str | None = None
    source: str | None = None
    licence: str | None = None
    seconds: float = 10.0
    """Longest clip; longer videos are cut into equal ones."""
    every: int = 1
    """Faces are looked for in every n-th frame; boxes between are interpolated, and of n > 1 no landmarks are kept."""


def index_folder(
    folder: Path, out: Path, told: Told, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[list[ManifestRow], list[str]]:
    """Write the manifest ``out`` of all videos under ``folder``; the same call goes on after an interruption.

    What an earlier manifest at ``out`` says of a file that has not changed is kept.

    Returns:
        the rows, and a sentence for every video that cannot be used.

    Raises:
        InputError: there is no such folder, no video in it, or none that can be used.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_TYPES)
    if not paths:
        raise InputError(f"{folder} holds no video ({', '.join(sorted(VIDEO_TYPES))}).")
    parts = out.with_name(out.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    if out.exists():
        for digest, rows in _by_hash(read_manifest(out)).items():
            if not _part(parts, digest).exists():
                write_manifest(rows, _part(parts, digest))
    hashes = {path: file_hash(path) for path in paths}
    missing = [path for path in paths if not _part(parts, hashes[path]).exists()]
    problems: list[str] = []
    done = len(paths) - len(missing)
    for path, problem in _index_all(missing, hashes, told, parts, workers):
        problems += [] if problem is None else [f"{path.name}: {problem}"]
        done += 1
        if progress is not None:
            progress(done, len(paths))
    rows = []
    for path in paths:
        if _part(parts, hashes[path]).exists():
            place = os.path.relpath(path.resolve(), out.parent.resolve())
            rows += [replace(row, path=place, **_said(path, told)) for row in read_manifest(_part(parts, hashes[path]))]
    if not rows:
        raise InputError(f"No video under {folder} can be trained on: {problems[0]}")
    write_manifest(rows, out)
    for part in parts.iterdir():
        part.unlink()
    parts.rmdir()
    return rows, problems


def _by_hash(rows: list[ManifestRow]) -> dict[str, list[ManifestRow]]:
    files: dict[str, list[ManifestRow]] = {}
    for row in rows:
        files.setdefault(row.hash, []).append(row)
    return files


def _part(parts: Path, digest: str) -> Path:
    return parts / f"{digest[:32]}.parquet"


def _index_all(
    paths: list[Path], hashes: dict[Path, str], told: Told, parts: Path, workers: int
) -> Iterator[tuple[Path, str | None]]:
    if workers == 1:
        for path in paths:
            yield path, _index_file(path, hashes[path], told, parts)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        jobs = {pool.submit(_index_file, path, hashes[path], told, parts): path for path in paths}
        for job in as_completed(jobs):
            yield jobs[job], job.result()


def _index_file(path: Path, digest: str, told: Told, parts: Path) -> str | None:
    """Write the rows of one video into ``parts``; returns why there are none."""
    try:
        rows = file_rows(path, digest, told.seconds, told.every)
    except InputError as error:
        return str(error)
    if not rows:
        return "no face is seen long enough."
    write_manifest(rows, _part(parts, digest))
    return None


def file_rows(path: Path, digest: str, seconds: float, every: int = 1) -> list[ManifestRow]:
    """The clips of a video in which a face is seen in at least half of the frames.

    Raises:
        InputError: it holds no video or no sound that can be read.
    """
    info = media.probe_video(path)
    audio = media.read_audio(path)
    pieces = max(int(np.ceil(info.duration / seconds)), 1)
    length = label_frames(info.duration / pieces)
    frames, rows = media.read_video(path, LABEL_FPS), []
    for piece in range(pieces):
        tracker, count = faces.FaceTracker(), 0
        for frame in islice(frames, length):
            if count % every == 0:
                tracker.update(frame)
            count += 1
        start = piece * length / LABEL_FPS
        end = min(start + count / LABEL_FPS, len(audio) / SAMPLE_RATE)
        if count == 0 or end <= start:
            break
        labels = _labels(tracker, label_frames(end - start), every)
        if labels is not None:
            row = ManifestRow(str(path), start, end, info.fps, digest, info.width, info.height)
            rows.append(replace(row, **labels))
    return [judged(path, row, audio) for row in rows]


def _labels(tracker: faces.FaceTracker, frames: int, every: int) -> dict[str, Any] | None:
    """Face boxes and landmarks of the speaker; None where the face is seen in less than half of the frames."""
    tracks = tracker.tracks()
    if not tracks or len(tracks[0].frames) < len(tracks[0].faces) / 2:
        return None
    shown = tracks[0].faces
    boxes = np.stack([np.full(4, np.nan) if face is None else face.box_xyxy for face in shown])
    if every > 1:
        looked = every * np.arange(len(shown))
        seen = np.isfinite(boxes).all(1)
        between = [np.interp(np.arange(frames), looked[seen], boxes[seen, side]) for side in range(4)]
        return {"face_boxes_F4": np.stack(between, 1).astype(np.float32)}
    points = np.stack([np.full((68, 2), np.nan) if face is None else faces.landmarks_68(face) for face in shown])
    return {
        "face_boxes_F4": boxes[:frames].astype(np.float32),
        "landmarks_F682": points[:frames].astype(np.float32),
    }


def judged(path: Path, row: ManifestRow, audio_n: np.ndarray) -> ManifestRow:
    """The row with what our sync expert says, if its weights are there; an offset only where it is sure of one."""
    from skyreels_audio.models.syncnet import OURS, face_crops, load_sync_expert

    try:
        expert = load_sync_expert()
    except InputError:
        return row
    boxes = row.face_boxes_F4
    if boxes is None or len(boxes) < JUDGED:
        return row
    first = round(row.start * LABEL_FPS)
    frames = islice(media.read_video(path, LABEL_FPS), first, first + len(boxes))
    crops = face_crops(frames, boxes)
    sound = audio_n[round(row.start * SAMPLE_RATE) : round(row.end * SAMPLE_RATE)]
    sync = expert.offset_and_confidence(crops, sound)
    sure = sync.confidence >= SURE and abs(sync.offset) > 1  # it knows to a frame, and `precompute` moves the sound
    return replace(
        row, sync_confidence=sync.confidence, sync_offset=float(sync.offset) if sure else None, sync_expert=OURS
    )


def _said(path: Path, told: Told) -> dict[str, str | None]:
    beside = path.with_suffix(".txt")
    caption = beside.read_text().strip() if beside.exists() else told.caption
    return {"caption": caption, "language": told.language, "source": told.source, "licence": told.licence}
