"""One row per clip: where it comes from, every score, why it was rejected, what went wrong, which stages have run.

A column is None until its stage has run, and where the stage cannot say (no face: no lips to compare with the voice).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, eq=False)
class Clip:
    """A stretch of a source from ``start`` to ``end`` seconds after its first frame, and what is known about it."""

    id: str
    source: str  # path or URL
    start: float = 0.0
    end: float = 0.0
    stages: dict[str, int] = field(default_factory=dict)  # stage → its version, of those that have run
    timings: dict[str, float] = field(default_factory=dict)  # stage → processor seconds; "decode" is shared
    worker: str | None = None  # host:process that wrote the row
    finished: float | None = None  # when, seconds since 1970
    rejected: str | None = None  # "stage.column" of the first threshold that failed: later stages passed the clip on
    error: str | None = None  # "stage: what happened"

    # 1 probe: of the whole source
    hash: str | None = None  # SHA-256 of the file
    size: int | None = None  # bytes
    container: str | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    width: int | None = None  # upright, pixels
    height: int | None = None
    fps: float | None = None
    source_seconds: float | None = None
    bitrate: int | None = None  # bits per second
    bits_per_pixel: float | None = None
    has_audio: bool | None = None
    audio_start: float | None = None  # seconds by which the sound starts after the picture
    suffix_matches: bool | None = None  # does the file's suffix name its container

    # 2 split
    seconds: float | None = None
    decoded: float | None = None  # share of the source that the file promises and the decoder delivers
    coherence: float | None = None  # least likeness of pictures half a second apart: a dissolve or hidden cut is low
    cut_score: float | None = None  # PySceneDetect's largest content change inside the clip

    # 3 quality
    sharpness: float | None = None  # 0 blurred … 1 crisp (1 - Crété's blur)
    noise: float | None = None  # standard deviation in grey levels
    brightness: float | None = None  # middle between dark and bright parts, 0 … 1
    clipped: float | None = None  # share of black or white pixels
    blockiness: float | None = None  # steps across the 8x8 grid over steps inside it
    duplicates: float | None = None  # share of frames that repeat the one before while the picture moves
    shake: float | None = None  # jitter of the camera, per mille of the picture's width
    flow: float | None = None  # mean optical flow, share of the picture's width per second

    # 4 content: means over sampled frames
    people: float | None = None  # by an open-vocabulary detector
    faces: float | None = None
    single_face: float | None = None  # share of the frames with exactly one face
    most_faces: int | None = None  # in any frame, seen at least twice
    text: float | None = None  # share of the picture that text covers
    letterbox: float | None = None  # share of the picture in flat bars at its edges
    static: float | None = None  # share of the time in which the picture stands still everywhere
    flat: float | None = None  # share of blocks of one colour: drawings, slides, screens

    # 5 portrait: of the main face
    face_share: float | None = None  # face height over picture height, median
    coverage: float | None = None  # share of frames in which it is followed
    yaw: float | None = None  # degrees, 95th percentile of the magnitude
    pitch: float | None = None
    roll: float | None = None
    visibility: float | None = None  # presence score of the landmark network, 5th percentile: occlusion is low
    stability: float | None = None  # median step of the face's centre between frames, in face heights
    head_to_body: float | None = None  # head height over shoulder width
    boxes: np.ndarray | None = None  # float32 [F·4] xyxy, pixels of the source, at 25 fps; nan where it is not seen
    landmarks: np.ndarray | None = None  # float32 [F·68·2] likewise

    # 6 audio
    loudness: float | None = None  # LUFS (ITU-R BS.1770)
    clipping: float | None = None  # share of samples piled up at a ceiling, be it full scale or below
    snr: float | None = None  # dB: speech over the noise that stays in its bands
    bandwidth: float | None = None  # Hz below which the speech lies
    speech: float | None = None  # share of the time
    language: str | None = None  # ISO 639-1, by Whisper, where it is set up
    music: float | None = None  # partials that stand, at a time
    speakers: float | None = None  # how far the voices that take turns are apart: 0 one voice … 1
    on_screen: float | None = None  # r of lip movement with speech activity

    # 7 synchrony
    sync_method: str | None = None
    sync_confidence: float | None = None  # on the method's own scale
    sync_offset: int | None = None  # frames at 25 fps by which the sound is late; constant ones are corrected
    sync_wander: float | None = None  # frames by which the offset changes during the clip

    # 8 caption
    caption: str | None = None
    caption_by: str | None = None

    # 9 fingerprints, for near-duplicates across the pool
    video_hash: list[int] | None = None  # 64 bits, five times a second
    audio_hash: list[int] | None = None  # 16 bits, ten times a second


COLUMNS = tuple(each.name for each in fields(Clip))


@cache
def arrow_schema() -> pyarrow.Schema:
    """The Parquet columns, from the annotations of ``Clip``."""
    import pyarrow as pa

    known = {
        "str": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "np.ndarray": pa.list_(pa.float32()),
        "list[int]": pa.list_(pa.int64()),
        "dict[str, int]": pa.map_(pa.string(), pa.int64()),
        "dict[str, float]": pa.map_(pa.string(), pa.float64()),
    }
    return pa.schema([(each.name, known[str(each.type).removesuffix(" | None")]) for each in fields(Clip)])


MAPS, ARRAYS = ("stages", "timings"), ("boxes", "landmarks")


def to_table(clips: Iterable[Clip]) -> pyarrow.Table:
    import pyarrow as pa

    rows = [{name: getattr(clip, name) for name in COLUMNS} for clip in clips]
    for row in rows:
        row |= {name: list(row[name].items()) for name in MAPS}
    return pa.Table.from_pylist(rows, arrow_schema())


def from_table(table: pyarrow.Table) -> list[Clip]:
    """The rows; columns that an older version wrote are left out, and those it did not know are None."""
    arrays = {name: table.column(name) for name in ARRAYS if name in table.column_names}
    known = [name for name in table.column_names if name in COLUMNS and name not in arrays]
    rows: list[dict[str, Any]] = table.select(known).to_pylist()
    for index, row in enumerate(rows):
        row |= {name: dict(row[name]) for name in MAPS if name in row}
        for name, column in arrays.items():
            row[name] = np.asarray(column[index].values, np.float32) if column[index].is_valid else None
    return [Clip(**row) for row in rows]
