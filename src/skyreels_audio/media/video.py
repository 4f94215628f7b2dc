"""Moving pictures, read."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, pairwise, repeat
from math import ceil
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc
from av.video.stream import VideoStream

from skyreels_audio.media.files import JOINED, LONGEST_GAP, InputError, decode, open_media, tagged_seconds
from skyreels_audio.media.frames import Pose, StoredFrame, is_yuv

HDR = {int(ColorTrc.SMPTE2084): "HDR (PQ)", int(ColorTrc.ARIB_STD_B67): "HDR (HLG)"}
FASTER = 1.5  # a video with a steady beat is at most so much faster than its average: it left out some frames
MOST_PIXELS = 8192 * 4320  # of a frame: what H.264 knows as its largest level


@dataclass(frozen=True)
class VideoInfo:
    """Upright size in pixels, frames per second, number of frames and seconds of a video's picture track.

    Attributes:
        pose: how stored frames are turned to stand upright; ``read_video`` turns them.
        aspect: width of an upright pixel over its height.
        duration: recorded seconds of picture.
        whole: whether ``duration`` is that of the picture alone, so that less than that is a truncated file.
        codec, pixel_format, bits, transfer, alpha: how the picture is stored; bits per sample, FFmpeg's transfer code.
        interlaced: whether the lines of a frame are of two times.
        variable: whether frames come at uneven times.
        others: how many further tracks of each kind the file has, "chapters" among them.
    """

    width: int
    height: int
    fps: float
    frames: int
    duration: float
    whole: bool
    has_audio: bool
    pose: Pose
    aspect: Fraction
    codec: str
    pixel_format: str
    bits: int
    transfer: int
    alpha: bool
    interlaced: bool
    variable: bool
    others: dict[str, int]

    @property
    def changes(self) -> list[str]:
        """What a video written from the stored frames of this one does not keep, as phrases."""
        odd = [name for name, side in (("column", self.width), ("row", self.height)) if side % 2]
        dropped = ", ".join(f"{count} {kind}" for kind, count in sorted(self.others.items()) if count)
        said = [
            (bool(self.pose), self.pose.words),
            (bool(odd), f"cut by one {' and one '.join(odd)}: H.264 holds even sizes"),
            (self.bits > 8, f"{self.bits} bits per sample become 8"),
            (self.transfer in HDR, f"{HDR.get(self.transfer)} stays, in its own colours"),
            (self.alpha, "transparency is left out"),
            (self.interlaced, "interlaced frames stay so, in a video that says nothing of it"),
            (self.variable, f"frames at uneven times become {self.fps:g} per second, repeated or left out"),
            (bool(dropped), f"not carried: {dropped}"),
        ]
        return [phrase for holds, phrase in said if holds]


def probe_video(path: str | Path) -> VideoInfo:
    """Look at the video at ``path``. Raises ``InputError`` if there is no such file or no moving picture in it."""
    with open_media(path) as container:
        stream = _picture_stream(container, path)
        frame = next(_decoded(container, stream), None)
        if frame is None:
            raise InputError(f"{path} is damaged or truncated: not one frame of it can be read.")
        if min(frame.width, frame.height) < 2:
            raise InputError(f"{path} has frames of {frame.width}×{frame.height}; at least 2×2 can be written.")
        if frame.width * frame.height > MOST_PIXELS:
            raise InputError(f"{path} has frames of {frame.width}×{frame.height}; at most 8192×4320 can be written.")
        own = stream.duration and stream.time_base or tagged_seconds(stream)
        duration = _recorded_seconds(container, stream)
        pose, aspect = Pose.of(frame), stream.sample_aspect_ratio or Fraction(1)
        sides, aspect = (frame.width, frame.height), aspect if aspect > 0 else Fraction(1)
        width, height = reversed(sides) if pose.transposed else sides
        variable = _is_variable(path)
        fps = _frame_rate(stream)
        counted = stream.frames if fps == stream.average_rate and not variable else 0
        shown = round(duration * fps)  # an edit list may hide some of those that are counted
        colours = [part.bits for part in frame.format.components]
        return VideoInfo(
            width=width,
            height=height,
            fps=float(fps),
            frames=min(counted or shown, shown or counted),
            duration=duration,
            whole=bool(own) or len(container.streams) == 1,
            has_audio=bool(container.streams.audio),
            pose=pose,
            aspect=1 / aspect if pose.transposed else aspect,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            bits=max(colours) if is_yuv(frame.format) else 8,
            transfer=int(frame.color_trc),
            alpha=_is_transparent(frame) or stream.metadata.get("alpha_mode") == "1",
            interlaced=frame.interlaced_frame,
            variable=variable,
            others=_others(container),
        )


def _is_transparent(frame: VideoFrame) -> bool:
    alpha = any(part.is_alpha for part in frame.format.components)
    return alpha and bool((frame.to_ndarray(format="rgba")[..., 3] < 255).any())


def _others(container: InputContainer) -> dict[str, int]:
    """How many tracks there are besides the picture and one sound, and chapters."""
    streams = container.streams
    pictures = [s for s in streams.video if not s.disposition & Disposition.attached_pic]
    counts = {"video tracks": len(pictures) - 1, "sound tracks": max(0, len(streams.audio) - 1)}
    counts |= {"subtitle tracks": len(streams.subtitles), "data tracks": len(streams.data)}
    counts["chapters"] = len(container.chapters())
    return counts


def _recorded_seconds(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return tagged_seconds(stream) or (container.duration or 0) / av.time_base


def read_video(path: str | Path, fps: float | None = None) -> Iterator[np.ndarray]:
    """Yield the upright frames of the video at ``path``, uint8 HWC.

    With ``fps``, frame k is what is shown at k / fps seconds, frames repeated or left out; else every frame as stored.
    Raises ``InputError`` if there is no such file or no moving picture in it.
    """
    for frame in timed_frames(path, fps):
        yield np.ascontiguousarray(Pose.of(frame).upright(frame.to_ndarray(format="rgb24")))


def read_stored(path: str | Path, fps: float | None = None) -> Iterator[StoredFrame]:
    """Like :func:`read_video`, frames as they are stored."""
    last: tuple[VideoFrame, StoredFrame] | None = None
    for frame in timed_frames(path, fps):
        if last is None or frame is not last[0]:  # a repeated one is one object
            last = frame, StoredFrame.of(frame)
        yield last[1]


def timed_frames(path: str | Path, fps: float | None = None) -> Iterator[VideoFrame]:
    """The codec library's own frames that :func:`read_video` shows, not yet turned upright, all of one size."""
    with open_media(path) as container:
        stream = _picture_stream(container, path)
        frames = _of_one_size(_decoded(container, stream))
        if fps is None:
            yield from frames
            return
        period = float(1 / _frame_rate(stream))
        begin, now, later, yielded = None, 0.0, 0.0, 0
        for frame, following in pairwise(chain(frames, [None])):
            assert frame is not None
            if begin is None:
                begin = now = frame.time or 0.0
            gone = now + period
            if following is not None and following.time is not None:
                if following.time + later < now - JOINED:
                    later = gone - following.time  # the next of files that were joined begins
                gone = following.time + later
            if gone - now > LONGEST_GAP:
                raise InputError(f"{path} is damaged: its picture stands for {gone - now:.0f} s, by its own clock.")
            now = gone  # when the frame is no longer shown
            count = ceil((gone - begin - 1e-3) * fps) - yielded  # containers round times to a millisecond
            if count > 0:
                yield from repeat(frame, count)
                yielded += count


def _picture_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """The first video stream that is not cover art and can be decoded."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise InputError(f"{path} holds a picture in a format that cannot be read.")
            stream.thread_type = "AUTO"
            return stream
    raise InputError(f"{path} has no video in it.")


def _frame_rate(stream: VideoStream) -> Fraction:
    """Frames per second: the beat of the frames where they keep one, else their average."""
    average, beat = stream.average_rate, stream.guessed_rate
    if average and beat and average < beat <= FASTER * average:
        return beat
    return average or beat or Fraction(25)


def _is_variable(path: str | Path, frames: int = 250) -> bool:
    """Whether the first frames of a video come at uneven times; containers may round those to a few milliseconds."""
    with open_media(path) as container:
        stream = _picture_stream(container, path)
        packets = islice(container.demux(stream), frames)
        times = [float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None]
    joined = next((at for at in range(1, len(times)) if times[at] < times[at - 1] - JOINED), len(times))
    steps = np.diff(sorted(times[:joined]))
    return bool(len(steps) and steps.max() - steps.min() > max(0.004, 0.2 * float(np.median(steps))))


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    return chain.from_iterable(map(decode, container.demux(stream)))


def _of_one_size(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Scaled to the first one's size, should it change midway, as FFmpeg does."""
    first = next(frames, None)
    if first is None:
        return
    yield first
    for frame in frames:
        if (frame.width, frame.height) != (first.width, first.height):
            yield frame.reformat(width=first.width, height=first.height)
        else:
            yield frame
