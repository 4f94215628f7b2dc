"""The clips of a manifest, encoded once and for all, in tar shards that training reads (webdataset's layout).

A sample is named by a hash of everything it is made of, so the same command goes on after an interruption, and does a
clip whose file, span, caption, landmarks or offset changed again, and nothing else. Any number of processes share the
work: ``--workers``, ``torchrun``, or both.

    out/set.json                 which samples there are to be, their sizes and splits
    out/null.safetensors         the tokens of the empty prompt
    out/left_out.jsonl           which of them cannot be made, and why
    out/shard-0123456789ab.tar   KEY.json (what it is, SHA-256 of the tensors), KEY.safetensors
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from skyreels_audio import faces, media
from skyreels_audio.acceleration.ranks import rank, world_size
from skyreels_audio.media import SAMPLE_RATE, InputError
from skyreels_audio.media.files import replacing, writing
from skyreels_audio.models.syncnet import FRAMES_PER_SECOND, MFCC_PER_FRAME, face_squares, mfcc
from skyreels_audio.training.encode import Encoders, Tensors, Window, crop_to, cut_sound, labels_at
from skyreels_audio.training.manifest import LABEL_FPS, ManifestRow, file_hash, read_manifest

CLIPS_PER_SHARD = 32
"""What an interruption loses at most, per process."""
PROBED = 64 << 10
"""Bytes at each of 64 places of a weight file that its fingerprint reads."""


@dataclass(frozen=True)
class Sample:
    """One sample that there is to be."""

    key: str
    row: int
    window: Window
    held_out: bool


@dataclass(frozen=True)
class Precompute:
    """What is encoded, with what, and how.

    Attributes:
        manifest: the clips.
        model: a model folder, whose encoders are used.
        out: the folder of shards.
        sizes: heights and widths of the frames; each clip takes the one whose shape is nearest to its own.
        latents: lengths in latent frames; clips are cut into the longest, what is left into the shorter ones.
        fps: frames per second that clips of any rate become.
        held_out: share of the files that is kept for evaluation.
        device: where the encoders run; None: a GPU if there is one.
    """

    manifest: Path
    model: Path
    out: Path
    sizes: tuple[tuple[int, int], ...]
    latents: tuple[int, ...] = (21,)
    fps: float = 25.0
    held_out: float = 0.02
    device: str | None = None


def precompute(job: Precompute, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> dict[str, int]:
    """Make what is missing; returns how many samples were wanted, made now, and left out.

    Raises:
        InputError: the manifest, the model or the sizes cannot be used.
    """
    rows, samples = plan(job)
    job.out.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        write_set(job, rows, samples)
        (job.out / "left_out.jsonl").unlink(missing_ok=True)
    there = set(stored_keys(job.out))
    share = world_size() * workers
    missing = [sample for sample in samples if sample.key not in there]
    # Who does a sample follows from its name: processes that start at different times agree on it.
    parts = [
        [sample for sample in missing if int(sample.key[:8], 16) % share == rank() * workers + worker]
        for worker in range(workers)
    ]
    counts = {"wanted": len(samples), "made": 0, "left_out": 0}
    total = sum(map(len, parts))
    for made, left_out in _in_processes(job, rows, parts):
        counts["made"] += made
        counts["left_out"] += left_out
        if progress is not None:
            progress(counts["made"] + counts["left_out"], total)
    return counts


def _in_processes(job: Precompute, rows: Sequence[ManifestRow], parts: list[list[Sample]]) -> Iterator[tuple[int, int]]:
    if len(parts) == 1:
        yield from encode_samples(job, rows, parts[0])
        return
    with ProcessPoolExecutor(len(parts), get_context("spawn")) as pool:
        jobs = [pool.submit(_encode_all, job, rows, part) for part in parts if part]
        for done in as_completed(jobs):
            yield done.result()


def _encode_all(job: Precompute, rows: Sequence[ManifestRow], samples: list[Sample]) -> tuple[int, int]:
    torch.set_num_threads(1)
    counts = np.array(list(encode_samples(job, rows, samples))).sum(0)
    return int(counts[0]), int(counts[1])


def plan(job: Precompute) -> tuple[list[ManifestRow], list[Sample]]:
    """The rows of the manifest and the samples they become."""
    if not (job.model / "model_index.json").exists():
        raise InputError(f"{job.model} is no model folder; `skyreels-audio convert` and `train` make them.")
    if any(length < 2 for length in job.latents):
        raise InputError("A training clip needs at least two latents (five frames).")
    rows, samples, encoders = read_manifest(job.manifest), [], model_fingerprint(job.model)
    for number, row in enumerate(rows):
        held_out = int(row.hash[:8], 16) / 2**32 < job.held_out
        size = nearest_size(row, job.sizes)
        for window in windows(int(row.seconds * job.fps + 1e-3), job.latents, size):
            labels = [digest(row.landmarks_F682), digest(row.face_boxes_F4)]
            told = [row.key, row.caption, *labels, encoders, job.fps, asdict(window)]
            told += [row.sync_offset] if row.sync_offset else []
            key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
            samples.append(Sample(key, number, window, held_out))
    if not samples:
        shortest = 4 * (min(job.latents) - 1) + 1
        raise InputError(f"No clip of {job.manifest} has {shortest} frames at {job.fps:g} per second.")
    return rows, samples


def digest(values: np.ndarray | None) -> str:
    return hashlib.sha256(b"" if values is None else np.ascontiguousarray(values).tobytes()).hexdigest()


def nearest_size(row: ManifestRow, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size whose shape is nearest to the file's; the first one where the file's is unknown."""
    if row.width is None or row.height is None:
        return sizes[0]
    shape = row.width / row.height
    return min(sizes, key=lambda size: abs(np.log(size[1] / size[0] / shape)))


def windows(frames: int, latents: Sequence[int], size: tuple[int, int]) -> Iterator[Window]:
    """Stretches without overlap: as many of the longest as fit, then of the shorter ones."""
    first = 0
    for length in sorted(latents, reverse=True):
        while first + (window := Window(first, length, size)).frames <= frames:
            yield window
            first += window.frames


def model_fingerprint(model: Path) -> str:
    """Tells encoders apart: their configurations, and 64 places of every file of weights."""
    digest = hashlib.sha256()
    for name in ("tokenizer", "text_encoder", "feature_extractor", "audio_encoder", "vae", "image_encoder"):
        for path in sorted(path for path in (model / name).glob("*") if path.is_file()):
            size = path.stat().st_size
            digest.update(f"{name}/{path.name} {size}".encode())
            with path.open("rb") as file:
                for place in np.linspace(0, max(size - PROBED, 0), 64, dtype=np.int64) if size > 64 * PROBED else [0]:
                    file.seek(int(place))
                    digest.update(file.read(PROBED if size > 64 * PROBED else -1))
    return digest.hexdigest()[:16]


def write_set(job: Precompute, rows: list[ManifestRow], samples: list[Sample]) -> None:
    """``set.json``: what training may read. Samples of before that are no longer in it stay in the shards unread."""
    entries = [
        {
            "key": sample.key,
            "latents": sample.window.latents,
            "size": sample.window.size,
            "held_out": sample.held_out,
            "confidence": rows[sample.row].sync_confidence,
        }
        for sample in samples
    ]
    told = {"encoders": model_fingerprint(job.model), "fps": job.fps, "samples": entries}
    with writing(job.out / "set.json"), replacing(job.out / "set.json") as partial:
        partial.write_text(json.dumps(told, indent=1))


def stored_keys(out: Path) -> Iterator[str]:
    """Names of the samples in finished shards; shards that cannot be read count as not there."""
    for path in sorted(out.glob("shard-*.tar")):
        try:
            with tarfile.open(path) as tar:
                names = tar.getnames()
        except (tarfile.TarError, OSError):
            continue
        yield from (name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors"))


def encode_samples(job: Precompute, rows: Sequence[ManifestRow], samples: list[Sample]) -> Iterator[tuple[int, int]]:
    """Encode samples, row by row, into shards; yields how many were made and left out with each shard."""
    if not samples:
        return
    place = torch.device(job.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    encoders = Encoders(job.model, place, job.fps)
    wrong = [f"{h}x{w}" for h, w in job.sizes if h % encoders.step or w % encoders.step]
    if wrong:
        raise InputError(f"{', '.join(wrong)}: sides must be multiples of {encoders.step} pixels for this model.")
    null = job.out / "null.safetensors"
    if not null.exists():
        with writing(null), replacing(null) as partial:
            partial.write_bytes(save({"text_SD": encoders.text("").to(torch.bfloat16)}))
    for first in range(0, len(samples), CLIPS_PER_SHARD):
        part = samples[first : first + CLIPS_PER_SHARD]
        left_out: list[str] = []
        write_shard(job.out, _encoded(encoders, rows, part, left_out))
        if left_out:
            with (job.out / "left_out.jsonl").open("a") as file:
                file.writelines(f"{line}\n" for line in left_out)
        yield len(part) - len(left_out), len(left_out)


def _encoded(
    encoders: Encoders, rows: Sequence[ManifestRow], samples: list[Sample], left_out: list[str]
) -> Iterator[tuple[str, dict[str, Any], Tensors]]:
    number, clip = -1, None
    for sample in samples:
        row = rows[sample.row]
        try:
            if clip is None or number != sample.row:
                clip, number = read_clip(row, encoders), sample.row
            tensors = encode_window(encoders, row, sample.window, *clip)
        except (ValueError, OSError) as error:
            number = -1
            left_out.append(json.dumps({"key": sample.key, "path": row.path, "why": str(error)}))
            continue
        told = {"path": row.path, "start": row.start, "caption": row.caption, "language": row.language}
        yield sample.key, told | asdict(sample.window), tensors


def read_clip(row: ManifestRow, encoders: Encoders) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Frames of a row's span at the rate of training, whatever the file's is; audio tokens and `mfcc` of the span.

    Where the file's sound is late or early by a constant ``sync_offset``, they are those of the sound that belongs to
    the frames.

    Raises:
        InputError: the file cannot be read, or has changed since the manifest was written.
    """
    if file_hash(row.path) != row.hash:
        raise InputError(f"{row.path} has changed since the manifest was written; make the manifest again.")
    fps = encoders.fps
    first, count = round(row.start * fps), int(row.seconds * fps + 1e-3)
    frames = list(islice(media.read_video(row.path, fps), first, first + count))
    if len(frames) < count:
        raise InputError(f"{row.path} ends {count - len(frames)} frames before the manifest says.")
    audio, late = media.read_audio(row.path), (row.sync_offset or 0.0) / LABEL_FPS
    start, end = first / fps + late, (first + count) / fps + late
    if start >= len(audio) / SAMPLE_RATE:
        raise InputError(f"The sound of {row.path} ends before the clip begins.")
    hop, first = SAMPLE_RATE // 100, round(start * SAMPLE_RATE)
    coefficients = mfcc(cut_sound(audio, first, first + round((end - start) * 100) * hop + 3 * hop // 2))
    return np.stack(frames), encoders.sound(audio, start, end), torch.from_numpy(coefficients)


def encode_window(
    encoders: Encoders,
    row: ManifestRow,
    window: Window,
    frames_FHWC: np.ndarray,
    sound_AD: torch.Tensor,
    mfcc_CM: torch.Tensor,
) -> Tensors:
    """One sample. Raises ValueError if no face is seen in it."""
    shown = frames_FHWC[window.first : window.first + window.frames]
    labels = labels_at(row, (window.first + np.arange(window.frames)) / encoders.fps)
    boxes, points = labels if labels is not None else track(shown)
    seen = np.isfinite(boxes).all(1)
    if not seen.any():
        raise ValueError("no face is seen")
    middle = np.median((boxes[seen, :2] + boxes[seen, 2:]) / 2, axis=0)
    cropped = [crop_to(frame, window.size, (float(middle[0]), float(middle[1]))) for frame in shown]
    _, corner, scale = cropped[0]
    pictures = np.stack([frame for frame, _, _ in cropped])
    start = window.first / encoders.fps
    tensors = encoders.clip(pictures, (points - corner) * scale, sound_AD, start, row.caption)
    if encoders.fps == FRAMES_PER_SECOND:  # at which a sync expert sees
        squares_F4 = (face_squares(boxes) - np.tile(corner, 2)) * scale
        tensors["squares_F4"] = torch.from_numpy(squares_F4).float()
        first, stop = (MFCC_PER_FRAME * (window.first + each) for each in (0, window.frames))
        tensors["mfcc_CM"] = mfcc_CM[:, first:stop].contiguous()
    return tensors


def track(frames_FHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [F, 4] and landmarks [F, 68, 2] of the largest face, NaN where it is not seen."""
    tracks = faces.track_faces(frames_FHWC)
    shown = tracks[0].faces if tracks else (None,) * len(frames_FHWC)
    boxes = [np.full(4, np.nan) if face is None else face.box_xyxy for face in shown]
    points = [np.full((68, 2), np.nan) if face is None else faces.landmarks_68(face) for face in shown]
    return np.stack(boxes), np.stack(points)


def write_shard(out: Path, samples: Iterator[tuple[str, dict[str, Any], Tensors]]) -> None:
    """A tar under a temporary name, then under that of its contents; none if there are no samples."""
    first = next(samples, None)
    if first is None:
        return
    keys: list[str] = []
    partial = out / f"shard-{first[0]}.partial"
    try:
        with tarfile.open(partial, "w") as tar:
            for key, told, tensors in chain([first], samples):
                blob = save(tensors)
                told = told | {"sha256": hashlib.sha256(blob).hexdigest()}
                for name, data in ((f"{key}.json", json.dumps(told).encode()), (f"{key}.safetensors", blob)):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
                keys.append(key)
        partial.replace(out / f"shard-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:12]}.tar")
    finally:
        partial.unlink(missing_ok=True)


def null_text(out: Path) -> torch.Tensor:
    """Tokens [S, D] of the empty prompt."""
    return load_file(out / "null.safetensors")["text_SD"]
