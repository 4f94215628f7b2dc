"""Sound, read as a waveform."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from skyreels_audio.media.files import JOINED, LONGEST_GAP, InputError, decode, open_media, tagged_seconds

SAMPLE_RATE = 16_000
"""Samples per second of every voice that a model reads."""

# Containers that record how long their sound is. Of others FFmpeg only guesses it, from the bit rate.
_RECORDS_LENGTH = ("wav", "w64", "flac", "mov", "matroska", "aiff")
_COMPLETE = 0.95  # the share of the recorded length that must be there; with less the file is truncated
_STREAMED = 0x7FFF0000  # bytes; what is written to a pipe says 0, 2³¹-1 or 2³²-1, about: nobody knew its length
_OPPOSITE = 8  # how much more power the difference of the channels must have to be heard instead of their mean


@dataclass(frozen=True, eq=False)
class Sound:
    """The sound of a file.

    Attributes:
        waveform_n: float32 [n] in [-1, 1], one channel, from the file's time zero.
        offset: seconds at which the file's own sound starts; before that the waveform is silent.
        lost: seconds of it that are damaged, and silent in the waveform.
        codec, rate, channels: as stored.
        tracks: how many sound tracks the file has; the main one is read.
        opposite: whether the channels cancel each other, so that their difference was taken.
    """

    waveform_n: np.ndarray
    offset: float
    lost: float
    codec: str
    rate: int
    channels: int
    tracks: int
    opposite: bool

    @property
    def changes(self) -> list[str]:
        """What was done to the sound so that a model can listen to it, as phrases."""
        said = [
            (self.tracks > 1, f"the main one of {self.tracks} sound tracks is used"),
            (self.lost > 0, f"{self.lost:.2f} s of the sound are damaged, and silent"),
            (self.opposite, "the channels of the sound cancel each other: their difference is heard"),
        ]
        return [phrase for holds, phrase in said if holds]


def read_audio(path: str | Path, rate: int = SAMPLE_RATE) -> np.ndarray:
    """The waveform of :func:`read_sound`, float32 [n]."""
    return read_sound(path, rate).waveform_n


def read_sound(path: str | Path, rate: int = SAMPLE_RATE) -> Sound:
    """Read the sound of any file FFmpeg knows (a video's sound track too), as the mean of its channels, at ``rate`` Hz.

    Time zero is the first frame of the picture, or without one the first sample; gaps in the timestamps are silent.
    Raises ``InputError`` if there is no such file, no sound in it, no samples in the sound, or the file is truncated.
    """
    decoder = SoundDecoder(path, "flt", rate)
    means, differences = [], []
    for chunk_nC in decoder:
        mean_n, difference_n = _sum_and_difference(chunk_nC)
        means.append(mean_n)
        differences.append(difference_n)
    if not means:
        raise InputError(f"{path} holds no sound after its picture begins.")
    power, other = (sum(float(np.vdot(part_n, part_n)) for part_n in parts) for parts in (means, differences))
    opposite = other > _OPPOSITE * power
    heard, means, differences = differences if opposite else means, [], []  # an hour is 230 MB
    length = round(decoder.end * rate) if decoder.end < inf else None
    waveform_n = np.concatenate(heard)[:length]  # encoders pad the last packet to a whole frame
    heard.clear()
    if not np.isfinite(waveform_n).all():
        raise InputError(f"{path} is damaged: some of its samples are not numbers.")
    seconds = len(waveform_n) / rate - decoder.offset  # of the sound itself
    if decoder.recorded and seconds < _COMPLETE * decoder.recorded:
        raise InputError(f"{path} is truncated: it holds {seconds:.2f} s of {decoder.recorded:.2f} s of sound.")
    np.clip(waveform_n, -1, 1, out=waveform_n)
    lost = max(0.0, seconds - decoder.decoded) if decoder.gaps else 0.0
    return Sound(
        waveform_n, decoder.offset, lost, decoder.codec, decoder.rate, decoder.channels, decoder.tracks, opposite
    )


def _sum_and_difference(chunk_nC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the channels, and the same with every second one turned over; both [n]."""
    signs_C = np.resize([1, -1], chunk_nC.shape[1])
    if len(signs_C) == 1:
        return chunk_nC[:, 0], chunk_nC[:, 0]
    return chunk_nC.mean(1), (chunk_nC * signs_C).mean(1, dtype=np.float32)


class SoundDecoder:
    """Iterate for the main sound of a file in chunks [n, C], from its time zero on (see :func:`read_sound`).

    Args:
        sample_format: of the chunks, interleaved: "flt", "s16" or "s32".
        rate, layout: of the chunks; as stored by default.

    Attributes:
        offset: seconds at which the sound starts, negative if before the picture; what is earlier is cut.
        codec, channels, rate, tracks: see ``Sound``.
        recorded: how many seconds the file says its sound has; None if it does not say.
        decoded: seconds of sound decoded, known at the end. gaps: whether the timestamps have holes.
        end: seconds from time zero to the end of the last packet, known at the end.
    """

    def __init__(
        self, path: str | Path, sample_format: str, rate: int | None = None, layout: str | None = None
    ) -> None:
        self.path, self.sample_format, self.layout = path, sample_format, layout
        self.decoded, self.end, self.gaps = 0.0, inf, False
        with open_media(path) as container:
            stream = sound_stream(container, path)
            first = next((frame for packet in container.demux(stream) for frame in decode(packet)), None)
            if first is None:
                raise InputError(f"{path} holds no sound: its duration is zero.")
            self.first_pts = first.pts or 0
            self.first_time = first.time or 0.0
            zero = picture_start(container)
            self.zero = self.first_time if zero is None else zero
            self.sample_bytes = first.format.bytes
            self.codec, self.rate = stream.codec_context.codec.canonical_name, stream.rate
            self.channels, self.stored_layout = stream.layout.nb_channels, stream.layout
            self.tracks = len(container.streams.audio)
            self.recorded = _recorded_seconds(container, stream, Path(path))
        self.output_rate = rate or self.rate

    @property
    def offset(self) -> float:
        return self.first_time - self.zero

    def __iter__(self) -> Iterator[np.ndarray]:
        skip = round(-self.offset * self.output_rate)  # samples before time zero; negative: missing ones
        for chunk_nC in self._chunks():
            if skip < 0:
                yield np.zeros((-skip, chunk_nC.shape[1]), chunk_nC.dtype)
                skip = 0
            if skip < len(chunk_nC):
                yield chunk_nC[skip:]
            skip = max(0, skip - len(chunk_nC))

    def _chunks(self) -> Iterator[np.ndarray]:
        options = {"async": "1"}  # fills gaps in the timestamps with silence
        layout = self.layout or self.stored_layout
        resampler = av.AudioResampler(self.sample_format, layout, self.output_rate, 4096, options=options)
        channels, clock, later = resampler.layout.nb_channels, None, 0.0
        with open_media(self.path) as container:
            for packet in container.demux(sound_stream(container, self.path)):
                for frame in decode(packet):
                    if clock is not None and frame.time is not None and frame.time + later < clock - JOINED:
                        later = clock - frame.time  # the next of files that were joined begins
                    if later and frame.pts is not None:
                        frame.pts += round(later / frame.time_base)
                    if clock is not None and frame.time is not None:
                        self._check_clock(frame.time - clock)
                    clock = None if frame.time is None else frame.time + frame.samples / frame.sample_rate
                    self.decoded += frame.samples / frame.sample_rate
                    for part in resampler.resample(frame):
                        yield part.to_ndarray().reshape(-1, channels)
                if packet.pts is not None and packet.duration:
                    end = float((packet.pts + packet.duration) * packet.time_base) + later - self.zero
                    self.end = max(end, -inf if self.end == inf else self.end)
            for part in resampler.resample(None):
                yield part.to_ndarray().reshape(-1, channels)

    def _check_clock(self, gap: float) -> None:
        """Whether the next frame comes about when the last one ends."""
        if gap > LONGEST_GAP:
            raise InputError(f"{self.path} is damaged: its sound pauses for {gap:.0f} s, by its own clock.")
        self.gaps |= gap > 0.01


def sound_stream(container: InputContainer, path: str | Path) -> AudioStream:
    """The main sound stream, if there is one that can be decoded; else raises ``InputError``."""
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise InputError(f"{path} has no sound in it.")
    context = stream.codec_context
    if context is None or not getattr(context, "sample_rate", 0) or not context.layout.nb_channels:
        raise InputError(f"{path} is damaged, or its sound is in an unknown format: its header does not make sense.")
    return stream


def picture_start(container: InputContainer) -> float | None:
    """Seconds at which the picture starts; None if there is only sound, or cover art."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return 0.0 if stream.start_time is None else float(stream.start_time * (stream.time_base or 0))
    return None


def _recorded_seconds(container: InputContainer, stream: AudioStream, path: Path) -> float | None:
    """How long the file says its sound is; None if it does not say."""
    kind = container.format.name
    exact_mp3 = kind == "mp3" and stream.start_time  # the encoder's delay comes with the exact length
    if not (exact_mp3 or kind.startswith(_RECORDS_LENGTH)):
        return None
    if tagged := tagged_seconds(stream):
        start = 0.0 if stream.start_time is None else float(stream.start_time * (stream.time_base or 0))
        return tagged - start
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
        return _recorded_wav(path, seconds) if kind == "wav" else seconds
    if container.duration and len(container.streams) == 1:
        return (container.duration - (container.start_time or 0)) / av.time_base
    return None


def _recorded_wav(path: Path, seconds: float) -> float | None:
    """How long a WAV file is by its own header; FFmpeg shortens the duration to what is there, and trusts no size."""
    with path.open("rb") as file:
        recorded = int.from_bytes(file.read(8)[4:], "little")
    if recorded == 0 or recorded >= _STREAMED:
        return None
    return seconds * max(1, recorded / path.stat().st_size)
