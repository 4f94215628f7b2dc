"""The kept clips as rows of the manifest that training reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from skyreels_audio.curation.schema import Clip, from_table
from skyreels_audio.curation.select import Verdict
from skyreels_audio.curation.storage import Folder, rows_name
from skyreels_audio.training.manifest import LABEL_FPS, ManifestRow, label_frames, write_manifest

NAME = "manifest.parquet"
KNOWN_TO = 1  # frames to which synchrony knows an offset: a smaller one is none
COLUMNS = (
    "id",
    "source",
    "start",
    "end",
    "fps",
    "hash",
    "width",
    "height",
    "source_seconds",
    "caption",
    "language",
    "boxes",
    "landmarks",
)
SYNC = ("stages", "sync_method", "sync_confidence", "sync_offset")


def export_manifest(verdicts: list[Verdict], out: Folder) -> int:
    """Write out/manifest.parquet; returns how many clips it holds.

    A constant offset of the sound is told in ``sync_offset``; `training.precompute` moves the sound by it.
    """
    kept = {each.clip.id for each in verdicts if each.kept}
    sources = sorted({each.clip.id.split("-")[0] for each in verdicts if each.kept})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        write_manifest(
            (manifest_row(clip) for source in sources for clip in _rows(out, source) if clip.id in kept), path
        )
        out.write(NAME, path.read_bytes())
    return len(kept)


def _rows(out: Folder, source_id: str) -> list[Clip]:
    """One source at a time: landmarks of a whole pool do not fit into memory."""
    table = out.read_table(rows_name(source_id))
    return from_table(table.select([name for name in (*COLUMNS, *SYNC) if name in table.column_names]))


def manifest_row(clip: Clip) -> ManifestRow:
    """A clip as training reads it."""
    boxes = None if clip.boxes is None else clip.boxes.reshape(-1, 4)
    landmarks = None if clip.landmarks is None else clip.landmarks.reshape(-1, 68, 2)
    late = 0 if clip.sync_offset is None or abs(clip.sync_offset) <= KNOWN_TO else clip.sync_offset
    start, end, kept = _heard(clip, late / LABEL_FPS)
    return ManifestRow(
        path=clip.source,
        start=start,
        end=end,
        fps=clip.fps or 25.0,
        hash=clip.hash or "",
        width=clip.width,
        height=clip.height,
        caption=clip.caption or "",
        language=clip.language,
        face_boxes_F4=None if boxes is None else boxes[kept],
        landmarks_F682=None if landmarks is None else landmarks[kept],
        sync_confidence=clip.sync_confidence,
        sync_offset=None if clip.sync_offset is None else late,
        sync_expert=clip.sync_method,
    )


def _heard(clip: Clip, late: float) -> tuple[float, float, slice]:
    """Start and end of what has its sound in the file once that is moved, and its label frames: at the ends of a file
    whose sound is early or late, the sound of some frames is missing.
    """
    unheard = max(0, round((-late - clip.start) * LABEL_FPS))
    start = clip.start + unheard / LABEL_FPS
    end = min(clip.end, (clip.source_seconds or clip.end) - max(late, 0.0))
    if end <= start:  # nothing is left of it: told as it is
        return clip.start, clip.end, slice(None)
    return start, end, slice(unheard, unheard + label_frames(end - start))
