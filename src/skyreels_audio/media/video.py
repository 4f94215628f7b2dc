"""Moving pictures."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise, repeat
from math import ceil, inf
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream

from skyreels_audio.media.files import InputError, decode, open_media, replacing, writing
from skyreels_audio.media.sound import carried_packets, packet_time

if TYPE_CHECKING:
    from skyreels_audio.media.stored import StoredFrame

AI_GENERATED = "AI-generated video, made with SkyReels-Audio"
"""The note about its origin that a written video carries in its metadata unless told otherwise."""


@dataclass(frozen=True)
class Colour:
    """What the numbers of Y, U and V mean, in FFmpeg's codes (ITU-T H.273)."""

    space: int = int(Colorspace.ITU709)
    range: int = int(ColorRange.MPEG)
    primaries: int = int(ColorPrimaries.BT709)
    transfer: int = int(ColorTrc.BT709)

    @classmethod
    def of(cls, frame: VideoFrame) -> "Colour":
        return cls(frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)

    def tag(self, target):
        """Write the codes onto a frame or an encoder; return it."""
        target.colorspace, target.color_range = self.space, self.range
        target.color_primaries, target.color_trc = self.primaries, self.transfer
        return target


@dataclass(frozen=True)
class VideoInfo:
    """Upright size in pixels, frames per second, number of frames and seconds of a video's picture track."""

    width: int
    height: int
    fps: float
    frames: int
    duration: float
    has_audio: bool
    rotation: int
    """Degrees, counter-clockwise, by which the stored frames are turned to stand upright; ``read_video`` turns them."""


def probe_video(path: str | Path) -> VideoInfo:
    """Look at the video at ``path``. Raises ``InputError`` if there is no such file or no moving picture in it."""
    with open_media(path) as container:
        stream = _picture_stream(container, path)
        frame = next(_decoded(container, stream), None)
        if frame is None:
            raise InputError(f"{path} is damaged or truncated: not one frame of it can be read.")
        fps = _frame_rate(stream)
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = (container.duration or 0) / av.time_base
        width, height = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
        frames = stream.frames or round(duration * fps)
        return VideoInfo(width, height, float(fps), frames, duration, bool(container.streams.audio), frame.rotation)


def read_video(path: str | Path, fps: float | None = None) -> Iterator[np.ndarray]:
    """Yield the upright frames of the video at ``path``, uint8 HWC.

    With ``fps``, frame k is what is shown at k / fps seconds, frames repeated or left out; else every frame as stored.
    Raises ``InputError`` if there is no such file or no moving picture in it.
    """
    yield from map(_upright_rgb, timed_frames(path, fps))


def timed_frames(path: str | Path, fps: float | None = None) -> Iterator[VideoFrame]:
    """The codec library's own frames that :func:`read_video` shows, not yet turned upright."""
    with open_media(path) as container:
        stream = _picture_stream(container, path)
        frames = _decoded(container, stream)
        if fps is None:
            yield from frames
            return
        start, yielded, last = None, 0, float(1 / _frame_rate(stream))
        for frame, following in pairwise(chain(frames, [None])):
            assert frame is not None
            start = frame.time if start is None else start
            gone = (following.time if following else frame.time + last) - start  # when it is no longer shown
            count = ceil((gone - 1e-3) * fps) - yielded  # containers round times to a millisecond
            if count > 0:
                yield from repeat(frame, count)
                yielded += count


def _picture_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """The first video stream that is not cover art."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            stream.thread_type = "AUTO"
            return stream
    raise InputError(f"{path} has no video in it.")


def _frame_rate(stream: VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    return chain.from_iterable(map(decode, container.demux(stream)))


def _upright_rgb(frame: VideoFrame) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def to_yuv420p(image: np.ndarray, colour: Colour) -> VideoFrame:
    """uint8 HWC, RGB → the codec library's frame, with colour at half the resolution."""
    return VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=colour.space,
        dst_color_range=colour.range,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
    )


class VideoWriter:
    """Writes an MP4 that plays everywhere (H.264 in yuv420p, index at the front); the same frames give the same bytes.

    A context manager: the file appears under its name when the block ends well, and not at all when it does not.

    Args:
        path: the file to write; an older one is replaced.
        width, height: of the frames, in pixels; even, since yuv420p halves them.
        fps: frames per second.
        audio: a file whose sound is carried: packets untouched (``CARRIED_CODECS``) or as lossless FLAC (the others).
        duration: seconds of that sound to carry; all by default.
        comment: the note about the video's origin in its metadata.
        crf: how much the encoder may lose, 0 (nothing) to 51.
        colour: of the frames, if they are stored frames.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float,
        audio: str | Path | None = None,
        duration: float | None = None,
        comment: str = AI_GENERATED,
        crf: int = 17,
        colour: Colour = Colour(),  # noqa: B008
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"the size of an H.264 video must be even, not {width}×{height}")
        self._path, self._audio, self._duration, self._comment = Path(path), audio, duration, comment
        self._crf, self._colour = crf, colour
        self._width, self._height, self._rate = width, height, Fraction(fps).limit_denominator(1001)
        self._frames = 0

    def __enter__(self) -> Self:
        with writing(self._path), ExitStack() as stack:
            partial = stack.enter_context(replacing(self._path))
            options = {"movflags": "+faststart", "fflags": "+bitexact"}
            self._output = stack.enter_context(av.open(f"file:{partial}", "w", format="mp4", options=options))
            self._output.metadata["comment"] = self._output.metadata["description"] = self._comment
            self._video = self._add_video()
            self._sound, self._packet = None, None
            if self._audio is not None:
                self._sound = stack.enter_context(closing(carried_packets(self._audio, self._output, self._duration)))
                self._packet = next(self._sound, None)  # adds the stream, before anything is written
            self._close = stack.pop_all().__exit__
        return self

    def _add_video(self) -> VideoStream:
        # The number of threads is fixed because the bytes that x264 writes depend on it.
        stream = self._output.add_stream("libx264", rate=self._rate, options={"crf": str(self._crf), "threads": "4"})
        stream.width, stream.height, stream.pix_fmt = self._width, self._height, "yuv420p"
        self._colour.tag(stream.codec_context)
        return stream

    def write(self, frame: "np.ndarray | StoredFrame") -> None:
        """Append one frame of the video's size: uint8 HWC, or a frame as another video stores it."""
        size = frame.shape[:2] if isinstance(frame, np.ndarray) else frame.size
        if size != (self._height, self._width):
            raise ValueError(f"a frame of {size[1]}×{size[0]} does not fit a video of {self._width}×{self._height}")
        picture = to_yuv420p(frame, self._colour) if isinstance(frame, np.ndarray) else frame.frame()
        picture.pts, picture.time_base = self._frames, 1 / self._rate
        self._frames += 1
        with writing(self._path):
            self._output.mux(self._video.encode(picture))
            self._mux_sound(until=float(self._frames / self._rate))

    def _mux_sound(self, until: float) -> None:
        """Sound keeps step with the picture, so that neither piles up in memory."""
        while self._sound and self._packet and packet_time(self._packet) < until:
            self._output.mux(self._packet)
            self._packet = next(self._sound, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self._path):
            if kind is not None:
                self._close(kind, error, trace)
                return
            with ExitStack() as stack:
                stack.push(self._close)
                self._output.mux(self._video.encode(None))
                self._mux_sound(until=inf)
