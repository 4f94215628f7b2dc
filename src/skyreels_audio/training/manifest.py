"""The manifest: which clips a training sees, one row each, in Parquet. Curation writes it, or ``manifest DIR``.

Legend: F frames at `LABEL_FPS`, counted from a clip's start.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from skyreels_audio.media import InputError
from skyreels_audio.models.rope import FRAMES_PER_SECOND as LABEL_FPS

REQUIRED = ("path", "start", "end", "fps", "hash")


@dataclass(frozen=True, eq=False)
class ManifestRow:
    """One clip: a span of a video file with one speaker, and what is known of it. Unknown labels are None.

    Attributes:
        path: the video with its sound; a relative path counts from the manifest's folder.
        start, end: the span, in seconds from the file's first frame; its sound is that of the same seconds.
        fps: frames per second of the file. Clips of any rate may be mixed: training resamples them in time.
        hash: SHA-256 of the file (`file_hash`), by which precomputed tensors notice that it changed.
        width, height: pixels of the upright frames.
        caption: what the frames show, as a prompt would say it.
        language: of the speech, as ISO 639-1 ("en").
        face_boxes_F4: float32, the speaker's face in every label frame (xyxy, pixels of the upright file), NaN where it
            is not seen. Label frame k is what the file shows ``k / LABEL_FPS`` seconds after ``start``.
        landmarks_F682: float32, the 68 points of iBUG in every label frame, pixels, NaN where the face is not seen; lip
            masks and lower-face boxes are made from them (`faces.lip_mask`, `faces.lower_face_box`).
        sync_confidence: of a sync expert, on its own scale.
        sync_offset: frames of 25 per second by which the file's sound comes late (negative: early), constantly;
            `precompute` moves it back.
        sync_expert: which expert said so, such as "sync expert (ours)" or "syncnet_v2".
        source, licence: where the file comes from and under which terms, for the model card.
    """

    path: str
    start: float
    end: float
    fps: float
    hash: str
    width: int | None = None
    height: int | None = None
    caption: str = ""
    language: str | None = None
    face_boxes_F4: np.ndarray | None = None
    landmarks_F682: np.ndarray | None = None
    sync_confidence: float | None = None
    sync_offset: float | None = None
    sync_expert: str | None = None
    source: str | None = None
    licence: str | None = None

    @property
    def seconds(self) -> float:
        return self.end - self.start

    @property
    def key(self) -> str:
        """Name of the clip: a hash of its file and span. Labels may change without changing it."""
        told = f"{self.hash} {self.start:.6f} {self.end:.6f}"
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def check(self) -> None:
        """Raise ValueError with what is wrong with the row."""
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start < self.end):
            raise ValueError(f"its span {self.start} … {self.end} s is empty or not finite")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"its fps is {self.fps}")
        frames = label_frames(self.seconds)
        for name, shape in (("face_boxes_F4", (frames, 4)), ("landmarks_F682", (frames, 68, 2))):
            labels = getattr(self, name)
            if labels is not None and labels.shape != shape:
                raise ValueError(f"{name} has the shape {labels.shape}; its span of {self.seconds:.3f} s needs {shape}")


def label_frames(seconds: float) -> int:
    """Label frames of a span: those that begin before its end."""
    return max(math.ceil(seconds * LABEL_FPS - 1e-3), 1)


def write_manifest(rows: Iterable[ManifestRow], path: str | Path) -> None:
    """Write rows as one Parquet file, whole or not at all.

    Raises:
        InputError: a row contradicts itself, or the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    path, records = Path(path), []
    for row in rows:
        try:
            row.check()
        except ValueError as error:
            raise InputError(f"The clip of {row.path} cannot be put into a manifest: {error}.") from None
        record = asdict(row)
        for name in ("face_boxes_F4", "landmarks_F682"):
            if record[name] is not None:
                record[name] = np.asarray(record[name], np.float32).ravel()
        records.append(record)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records, _schema()), partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


def read_manifest(path: str | Path) -> list[ManifestRow]:
    """The rows of a manifest, a Parquet file or a folder of them (read in the order of their names).

    Paths become absolute or relative to the current folder. Columns that are not of the schema are left unread.

    Raises:
        InputError: there is no such manifest, a required column is missing, or a row contradicts itself.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise InputError(f"{path}: no such manifest; `skyreels-audio manifest FOLDER` makes one.")
    rows: list[ManifestRow] = []
    names = [field.name for field in fields(ManifestRow)]
    for file in files:
        try:
            there = pyarrow.parquet.read_schema(file).names
            missing = [name for name in REQUIRED if name not in there]
            if missing:
                raise InputError(f"{file} is no manifest: it lacks the column{_s(missing)} {', '.join(missing)}.")
            table = pyarrow.parquet.read_table(file, columns=[name for name in names if name in there])
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{file} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
        for number, record in enumerate(table.to_pylist(), start=1):
            rows.append(_row(record, file, number))
    return rows


def _row(record: dict[str, Any], file: Path, number: int) -> ManifestRow:
    known = {name: value for name, value in record.items() if value is not None}
    absent = [name for name in REQUIRED if name not in known]
    if absent:
        raise InputError(f"{file}, row {number}: {', '.join(absent)} is empty.")
    for name, shape in (("face_boxes_F4", (-1, 4)), ("landmarks_F682", (-1, 68, 2))):
        if name in known:
            known[name] = np.asarray(known[name], np.float32).reshape(shape)
    row = ManifestRow(**known)
    try:
        row.check()
    except ValueError as error:
        raise InputError(f"{file}, row {number} ({row.path}): {error}.") from None
    there = Path(row.path)
    return row if there.is_absolute() else replace(row, path=str(file.parent / there))


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _s(names: Sequence[str]) -> str:
    return "s" if len(names) > 1 else ""


def _schema() -> Any:
    import pyarrow as pa

    labels = pa.list_(pa.float32())  # flattened
    return pa.schema([
        ("path", pa.string()),
        *((name, pa.float64()) for name in ("start", "end", "fps")),
        ("hash", pa.string()),
        *((name, pa.int32()) for name in ("width", "height")),
        *((name, pa.string()) for name in ("caption", "language")),
        *((name, labels) for name in ("face_boxes_F4", "landmarks_F682")),
        *((name, pa.float32()) for name in ("sync_confidence", "sync_offset")),
        *((name, pa.string()) for name in ("sync_expert", "source", "licence")),
    ])  # fmt: skip
