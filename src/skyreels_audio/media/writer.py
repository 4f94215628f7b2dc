"""Moving pictures, written."""

from contextlib import ExitStack, closing
from fractions import Fraction
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.codec.context import Flags
from av.video.stream import VideoStream

from skyreels_audio.media.carrying import AudioCodec, carried_packets, packet_time, plan_carriage
from skyreels_audio.media.files import replacing, writing
from skyreels_audio.media.frames import Colour, StoredFrame, to_yuv420p

AI_GENERATED = "AI-generated video, made with SkyReels-Audio"
"""The note about its origin that a written video carries in its metadata unless told otherwise."""
MACROBLOCK = 16  # pixels
FULL_HD = 1920 * 1088  # pixels of a frame


class VideoWriter:
    """Writes an MP4 that plays everywhere (H.264 in yuv420p, index at the front); the same frames give the same bytes.

    A context manager: the file appears under its name when the block ends well, and not at all when it does not.

    Args:
        path: the file to write; an older one is replaced.
        width, height: of the frames, in pixels; even, since yuv420p halves them.
        fps: frames per second.
        audio: a file whose sound is carried, see :func:`plan_carriage`.
        duration: seconds of that sound to carry; all by default.
        comment: the note about the video's origin in its metadata.
        crf: how much the encoder may lose, 0 (nothing) to 51.
        colour: of the frames, if they are stored frames.
        aspect: width of a pixel over its height.
        audio_codec: how the sound is carried, see :func:`plan_carriage`.
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
        crf: int = 16,
        colour: Colour = Colour(),  # noqa: B008
        aspect: Fraction = Fraction(1),  # noqa: B008
        audio_codec: AudioCodec = "aac",
    ) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"the size of an H.264 video must be even, not {width}×{height}")
        self._path, self._audio, self._duration, self._comment = Path(path), audio, duration, comment
        self._crf, self._colour, self._aspect = crf, colour, aspect
        self._audio_codec: AudioCodec = audio_codec
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
                carriage = plan_carriage(self._audio, self._audio_codec)
                packets = carried_packets(self._audio, self._output, self._duration, carriage)
                self._sound = stack.enter_context(closing(packets))
                self._packet = next(self._sound, None)  # adds the stream, before anything is written
            self._close = stack.pop_all().__exit__
        return self

    def _add_video(self) -> VideoStream:
        # What x264 writes depends on the number of threads and, unless it is asked for exact bits, on their race.
        # This preset takes a third of the time of x264's own for the same error, in files a quarter larger.
        options = {"crf": str(self._crf), "preset": "veryfast", "threads": "4"}
        if self._width < 16 * MACROBLOCK:  # its SIMD code reads past the edges of small frames: what lies in memory
            options["x264-params"] = "asm=0"
        if self._width * self._height > FULL_HD:
            options["rc-lookahead"] = "10"  # frames that x264 holds, of 40 by default: in 4K those are a gigabyte
        stream = self._output.add_stream("libx264", rate=self._rate, options=options)
        stream.width, stream.height, stream.pix_fmt = self._width, self._height, "yuv420p"
        stream.codec_context.flags |= Flags.bitexact
        stream.sample_aspect_ratio = self._aspect
        self._colour.tag(stream.codec_context)
        return stream

    def write(self, frame: np.ndarray | StoredFrame) -> None:
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
