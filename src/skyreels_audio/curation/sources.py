"""Stages 1 and 2: is the file whole, and where are its clips."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from skyreels_audio.curation.footage import source_path
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.stage import Stage, need_packages
from skyreels_audio.media import InputError
from skyreels_audio.media.span import Scan, probe_container

# Suffix → a name that FFmpeg gives the container.
CONTAINERS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".3gp"), "mp4"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    **dict.fromkeys((".ts", ".mts"), "mpegts"),
    **dict.fromkeys((".mpg", ".mpeg"), "mpeg"),
    **{".avi": "avi", ".flv": "flv", ".wmv": "asf", ".ogv": "ogg"},
}
PICTURE = ("_pipe", "image2")  # how FFmpeg calls the containers that it reads single pictures from
SCAN_SIDE = 72  # pixels of the frames in which cuts are looked for
THUMBNAIL = 16  # cells per side of what is kept of a frame to compare pictures over time
APART = 0.5  # seconds between the pictures that coherence compares


class Probe(Stage):
    """What the container says, and the file's hash. A file that is no video is an error, in one sentence."""

    name: ClassVar[str] = "probe"

    def __call__(self, clip: Clip) -> Clip:
        path = Path(source_path(clip.source))
        found = probe_container(path)
        if found.format.endswith(PICTURE):
            raise InputError(f"{path} is a picture, not a video.")
        size = path.stat().st_size
        pixels = found.width * found.height * found.fps
        return replace(
            clip,
            end=found.duration,
            hash=_sha256(path),
            size=size,
            container=found.format,
            video_codec=found.video_codec,
            audio_codec=found.audio_codec,
            width=found.width,
            height=found.height,
            fps=found.fps,
            source_seconds=found.duration,
            bitrate=found.bitrate,
            bits_per_pixel=found.bitrate / pixels if pixels else None,
            has_audio=found.audio_start is not None,
            audio_start=found.audio_start,
            suffix_matches=CONTAINERS.get(path.suffix.lower(), "?") in found.format.split(","),
        )


class Split(Stage):
    """Decode the source from end to end and cut it into clips that hold no cut.

    Cuts are PySceneDetect's (Castellano; content detector) and jumps: one step between frames that is many times its
    neighbours', as where the same person's takes are joined. A scene longer than ``max_seconds`` becomes equal clips.
    """

    name: ClassVar[str] = "split"
    threshold: float = Field(default=27.0, gt=0)  # of PySceneDetect's content score
    jump: float = Field(default=6.0, gt=1)  # times the largest step of the neighbouring frames
    max_seconds: float = Field(default=15.0, gt=0)

    def check(self) -> None:
        need_packages(self.name, "cv2", "scenedetect")

    def __call__(self, clip: Clip) -> list[Clip]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The clips of a source that was probed."""
        scan = Scan(source_path(clip.source), SCAN_SIDE)
        times, thumbnails_FN, scores, steps = self._watch(scan, clip.fps or 25.0)
        if not len(times):
            raise InputError(f"{clip.source}: no frame of it can be read.")
        promised = clip.source_seconds or scan.end
        decoded = min(1.0, scan.end / promised if promised else 1.0) - min(1.0, scan.damaged / scan.frames)
        cuts = np.flatnonzero((scores >= self.threshold) | (_spikes(steps) >= self.jump))
        edges = [0.0, *(times[cut] for cut in cuts if cut > 0), scan.end]
        clips = []
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            parts = max(1, int(np.ceil((last - first) / self.max_seconds - 1e-6)))
            for start, end in zip(*_pairs(np.linspace(first, last, parts + 1)), strict=True):
                inside = (times >= start - 1e-6) & (times < end - 1e-6)
                within = replace(clip, id=f"{clip.id}-{len(clips):04d}", start=round(start, 4), end=round(end, 4))
                later = scores[inside][1:]
                clips.append(
                    replace(
                        within,
                        seconds=round(end - start, 4),
                        decoded=round(decoded, 4),
                        coherence=_coherence(thumbnails_FN[inside], times[inside]),
                        cut_score=float(later.max()) if len(later) else 0.0,
                    )
                )
        return clips

    def _watch(self, scan: Scan, fps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of all frames: times [F], thumbnails float16 [F, N], content scores [F], mean grey steps [F]."""
        from scenedetect import FrameTimecode
        from scenedetect.detectors import ContentDetector

        detector = ContentDetector(threshold=self.threshold)
        times, thumbnails, scores, steps, before = [], [], [], [], None
        for index, (time, frame) in enumerate(scan):
            detector.process_frame(FrameTimecode(index, fps), np.ascontiguousarray(frame[..., ::-1]))
            scores.append(detector._frame_score or 0.0)  # the scene list would drop cuts that are close together
            grey = frame @ np.array([0.299, 0.587, 0.114], np.float32)
            steps.append(0.0 if before is None else float(np.abs(grey - before).mean()))
            times.append(time)
            thumbnails.append(_thumbnail(grey))
            before = grey
        return np.array(times), np.array(thumbnails, np.float16), np.array(scores), np.array(steps)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _thumbnail(grey_HW: np.ndarray) -> np.ndarray:
    """Means of a grid of THUMBNAIL² cells: [N]."""
    rows, columns = (np.linspace(0, side, THUMBNAIL + 1).astype(int)[:-1] for side in grey_HW.shape)
    sums = np.add.reduceat(np.add.reduceat(grey_HW, rows, axis=0), columns, axis=1)
    area = np.outer(np.diff([*rows, grey_HW.shape[0]]), np.diff([*columns, grey_HW.shape[1]]))
    return (sums / area).ravel()


def _spikes(steps_F: np.ndarray) -> np.ndarray:
    """How many times larger each step is than the largest of the four around it, half a grey level at least."""
    padded = np.pad(steps_F, 2)
    around = np.maximum.reduce([padded[shift : shift + len(steps_F)] for shift in (0, 1, 3, 4)])
    return steps_F / (around + 0.5)


def _coherence(thumbnails_FN: np.ndarray, times_F: np.ndarray) -> float:
    """Least correlation of two pictures ``APART`` seconds apart; 1 for what is shorter."""
    later = np.searchsorted(times_F, times_F + APART)
    pairs = np.flatnonzero(later < len(times_F))
    if not len(pairs):
        return 1.0
    a, b = thumbnails_FN[pairs].astype(np.float32), thumbnails_FN[later[pairs]].astype(np.float32)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.min(np.where(scale > 1, (a * b).sum(1) / np.maximum(scale, 1), 1.0)))


def _pairs(edges: np.ndarray) -> tuple[list[float], list[float]]:
    return edges[:-1].tolist(), edges[1:].tolist()
