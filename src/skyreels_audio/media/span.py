"""A stretch of a video, its picture and its sound on one clock: zero is when the first frame is shown.

Everything here decodes on one thread: whoever reads stretches of many videos shares the machine out by processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from skyreels_audio.media.files import InputError, decode, open_media
from skyreels_audio.media.frames import Pose
from skyreels_audio.media.sound import sound_stream
from skyreels_audio.media.video import _picture_stream


@dataclass(frozen=True)
class Container:
    """What a file says about itself, before anything but its first frame is decoded.

    format: FFmpeg's names of the container, such as "mov,mp4,m4a". width, height: upright, in pixels.
    duration: of the picture in seconds, 0 if the file does not say. bitrate: of the whole file, bits per second.
    audio_start: seconds by which the sound starts after the picture; None without sound.
    """

    format: str
    video_codec: str
    audio_codec: str | None
    width: int
    height: int
    fps: float
    duration: float
    bitrate: int
    audio_start: float | None


def probe_container(path: str | Path) -> Container:
    """Raises ``InputError`` if there is no such file, no moving picture in it, or none of its frames can be read."""
    with open_media(path) as container:
        stream = _picture(container, path)
        frame = next((frame for packet in container.demux(stream) for frame in decode(packet)), None)
        if frame is None:
            raise InputError(f"{path} is damaged or truncated: not one frame of it can be read.")
        sound = container.streams.best("audio")
        duration = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
        sides = (frame.height, frame.width) if Pose.of(frame).transposed else (frame.width, frame.height)
        return Container(
            container.format.name,
            stream.codec_context.name,
            sound.codec_context.name if sound else None,
            *sides,
            float(stream.average_rate or stream.guessed_rate or 25),
            duration if duration is not None else (container.duration or 0) / av.time_base,
            container.bit_rate or 0,
            _start(sound) - _start(stream) if sound else None,
        )


@dataclass
class Scan:
    """Decodes a video from end to end; iterate once for (seconds, small frame uint8 HWC) of every frame.

    side: pixels of the small frame's shorter side. Afterwards ``frames`` counts what was read, ``damaged`` the packets
    that could not be and the frames that the decoder had to guess, and ``end`` is when the last frame is gone, seconds.
    """

    path: str | Path
    side: int
    frames: int = field(default=0, init=False)
    damaged: int = field(default=0, init=False)
    end: float = field(default=0.0, init=False)

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        with open_media(self.path) as container:
            stream = _picture(container, self.path)
            start, last = _start(stream), float(1 / (stream.average_rate or stream.guessed_rate or 25))
            for packet in container.demux(stream):
                for frame in self._decode(packet):
                    seconds = self.end if frame.time is None else frame.time - start
                    self.frames, self.end = self.frames + 1, seconds + last
                    self.damaged += frame.is_corrupt
                    yield seconds, small_rgb(frame, self.side)

    def _decode(self, packet: av.Packet) -> list[VideoFrame]:
        try:
            return packet.decode()  # pyright: ignore[reportReturnType]
        except av.error.InvalidDataError:
            self.damaged += 1
            return []


def read_span(path: str | Path, start: float, end: float, fps: float, side: int | None = None) -> Iterator[np.ndarray]:
    """Yield the upright frames, uint8 HWC, shown at ``start + k / fps`` seconds, all before ``end``.

    side: reduce the frames so that the shorter side has at most so many pixels.
    """
    with open_media(path) as container:
        stream = _picture(container, path)
        zero = _start(stream)
        _seek(container, stream, zero + start)
        wanted, count, shown = 0, max(1, ceil((end - start) * fps - 1e-3)), None
        for packet in container.demux(stream):
            for frame in decode(packet):
                if frame.time is None:
                    continue
                picture: np.ndarray | None = None
                while shown is not None and wanted < count and start + wanted / fps < frame.time - zero - 1e-3:
                    picture = small_rgb(shown, side) if picture is None else picture
                    yield picture
                    wanted += 1
                if wanted == count:
                    return
                shown = frame
        if shown is not None and wanted < count:
            last = small_rgb(shown, side)
            yield from (last for _ in range(count - wanted))


def read_sound_span(path: str | Path, start: float, end: float, rate: int = 16000) -> np.ndarray:
    """The sound from ``start`` to ``end`` seconds, mean of its channels at ``rate`` Hz: float32 [(end - start)·rate].

    Where the file has none, before its first sample or in gaps, there is silence.
    """
    out_n = np.zeros(round((end - start) * rate), np.float32)
    with open_media(path) as container:
        zero = _start(_picture(container, path))
        stream = sound_stream(container, path)
        _seek(container, stream, zero + start - 0.2)
        resampler = av.AudioResampler("flt", stream.layout, rate, options={"async": "1"})  # fills gaps with silence
        chunks, first = [], None
        for packet in container.demux(stream):
            frames = decode(packet)
            if frames and frames[0].time is not None and frames[0].time - zero > end + 0.2:
                break
            for frame in frames:
                first = frame.time if first is None else first
                chunks += [_mean(part) for part in resampler.resample(frame)]
        chunks += [_mean(part) for part in resampler.resample(None)]
    if first is None:
        return out_n
    waveform_n = np.concatenate(chunks)
    offset = round((first - zero - start) * rate)  # of the first decoded sample in the span
    begin, stop = max(0, offset), min(len(out_n), offset + len(waveform_n))
    if stop > begin:
        out_n[begin:stop] = waveform_n[begin - offset : stop - offset]
    return out_n


def small_rgb(frame: VideoFrame, side: int | None) -> np.ndarray:
    """An upright picture, uint8 HWC, reduced until its shorter side has at most ``side`` pixels."""
    scale = 1.0 if side is None else min(1.0, side / min(frame.width, frame.height))
    width, height = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
    rgb = frame.reformat(width, height, format="rgb24", interpolation=Interpolation.AREA).to_ndarray()
    return np.ascontiguousarray(Pose.of(frame).upright(rgb))


def _mean(chunk: av.AudioFrame) -> np.ndarray:
    """The mean of the channels, [n]."""
    return chunk.to_ndarray().reshape(-1, chunk.layout.nb_channels).mean(1)


def _picture(container: InputContainer, path: str | Path) -> VideoStream:
    stream = _picture_stream(container, path)
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    return stream


def _start(stream: Stream) -> float:
    """When the stream's first frame is due, in seconds of the file's own clock."""
    return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0


def _seek(container: InputContainer, stream: Stream, seconds: float) -> None:
    assert stream.time_base is not None
    container.seek(max(0, int(seconds / stream.time_base)), stream=stream)
