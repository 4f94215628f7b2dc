"""Pictures and sound of the clip at hand, decoded once for all stages that look at it.

Legend: F frames, n samples.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.storage import local_copy
from skyreels_audio.media import InputError
from skyreels_audio.media.span import read_sound_span, read_span

FPS = 25  # frames per second of all measurements
RATE = 16_000  # samples per second likewise
SIDE = 360  # pixels of a measured frame's shorter side, at most
STILLS = 4  # frames looked at in the source's own resolution
STILL_SIDE = 2160  # pixels of their shorter side, at most


class Source:
    """A source's file while its clips are measured; a copy of it if it lies elsewhere. A context manager."""

    _open: "Source | None" = None  # one per process

    def __init__(self, url: str) -> None:
        self.url = url
        self.footage: Footage | None = None

    def __enter__(self) -> "Source":
        self._copy = local_copy(self.url)
        self.path = str(self._copy.__enter__())
        Source._open = self
        return self

    def __exit__(self, *error) -> None:
        Source._open = None
        self._copy.__exit__(*error)


def source_path(url: str) -> str:
    """Where the file of an open source lies on this machine."""
    source = Source._open
    assert source is not None and source.url == url, f"{url} is not open"
    return source.path


def footage(clip: Clip) -> "Footage":
    """The clip's pictures and sound; those of the last one asked for are kept."""
    path, source = source_path(clip.source), Source._open
    assert source is not None
    if source.footage is None or (source.footage.start, source.footage.end) != (clip.start, clip.end):
        source.footage = Footage(path, clip.start, clip.end, bool(clip.has_audio))
    return source.footage


@dataclass
class Footage:
    """One clip of a file."""

    path: str
    start: float
    end: float
    has_audio: bool

    @cached_property
    def frames_FHWC(self) -> np.ndarray:
        """uint8, at ``FPS``, shorter side at most ``SIDE`` pixels."""
        frames = list(read_span(self.path, self.start, self.end, FPS, SIDE))
        if not frames:
            raise InputError(f"{self.path} has no picture from {self.start:.2f} to {self.end:.2f} s.")
        return np.stack(frames)

    @cached_property
    def luma_FHW(self) -> np.ndarray:
        """float32, 0 … 255."""
        return self.frames_FHWC @ np.array([0.299, 0.587, 0.114], np.float32)

    @cached_property
    def stills(self) -> list[np.ndarray]:
        """A few frames spread over the clip, uint8 HWC, in the source's own resolution."""
        seconds = self.end - self.start
        times = [self.start + seconds * (k + 0.5) / STILLS for k in range(STILLS)]
        return [next(read_span(self.path, time, time + 1 / FPS, FPS, STILL_SIDE)) for time in times]

    @cached_property
    def sound_n(self) -> np.ndarray:
        """float32 at ``RATE``; raises ``InputError`` if the source has none."""
        return read_sound_span(self.path, self.start, self.end, RATE)
