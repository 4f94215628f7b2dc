"""Sound: read as a waveform, or carried over to a video."""

from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import chain
from math import inf
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from skyreels_audio.media.files import InputError, decode, open_media

SAMPLE_RATE = 16_000
"""Samples per second of every voice that a model reads."""

CARRIED_CODECS = frozenset({"aac", "mp3", "opus", "flac", "alac"})
"""Sound that an MP4 file carries as it is; every other codec becomes FLAC, which keeps each sample."""

# Containers that record how long their sound is. Of others FFmpeg only guesses it, from the bit rate.
_RECORDS_LENGTH = ("wav", "flac", "mov", "matroska", "aiff")
_COMPLETE = 0.95  # the share of the recorded length that must be there; with less the file is truncated


def read_audio(path: str | Path, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Read the sound of any file FFmpeg knows (a video's sound track too), as the mean of its channels, at ``rate`` Hz.

    Time zero is the first sample of the sound; gaps in its timestamps are filled with silence. Returns float32 [n].
    Raises ``InputError`` if there is no such file, no sound in it, no samples in the sound, or the file is truncated.
    """
    chunks, start, end = [], None, inf
    with open_media(path) as container:
        stream = sound_stream(container, path)
        recorded = _recorded_seconds(container, stream, path)
        resampler = _resampler("flt", stream.layout, rate, frame_size=4096)
        for packet in container.demux(stream):
            if packet.pts is not None and packet.duration:
                end = float((packet.pts + packet.duration) * packet.time_base)
            for frame in decode(packet):
                start = (frame.time or 0.0) if start is None else start
                chunks += [_mean_of_channels(part) for part in resampler.resample(frame)]
        chunks += [_mean_of_channels(part) for part in resampler.resample(None)]
    if start is None:
        raise InputError(f"{path} holds no sound: its duration is zero.")
    waveform_n = np.concatenate(chunks)
    if end < inf:  # the last packet may decode to more than it stands for: encoders pad it to a whole frame
        waveform_n = waveform_n[: round((end - start) * rate)]
    seconds = len(waveform_n) / rate
    if recorded and seconds < _COMPLETE * recorded:
        raise InputError(f"{path} is truncated: it holds {seconds:.2f} s of {recorded:.2f} s of sound.")
    if not np.isfinite(waveform_n).all():
        raise InputError(f"{path} is damaged: some of its samples are not numbers.")
    return waveform_n


def _mean_of_channels(frame: av.AudioFrame) -> np.ndarray:
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(1)


def sound_stream(container: InputContainer, path: str | Path) -> AudioStream:
    """The main sound stream, if there is one; else raises ``InputError``."""
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise InputError(f"{path} has no sound in it.")
    return stream


def _recorded_seconds(container: InputContainer, stream: AudioStream, path: str | Path) -> float | None:
    """How long the file says its sound is; None if it does not say."""
    exact_mp3 = container.format.name == "mp3" and stream.start_time  # the encoder's delay comes with the exact length
    if not (exact_mp3 or container.format.name.startswith(_RECORDS_LENGTH)):
        return None
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
        return seconds * _recorded_share(Path(path)) if container.format.name == "wav" else seconds
    if container.duration and len(container.streams) == 1:
        return (container.duration - (container.start_time or 0)) / av.time_base
    return None


def _recorded_share(path: Path) -> float:
    """How much longer a WAV file is by its own header than in fact; FFmpeg shortens the duration to what is there."""
    with path.open("rb") as file:
        recorded = int.from_bytes(file.read(8)[4:], "little")
    return 1 if recorded == 0xFFFFFFFF else max(1, recorded / path.stat().st_size)  # 2³²-1: written to a pipe


def _resampler(sample_format: str, layout: av.AudioLayout | str, rate: int, frame_size: int) -> av.AudioResampler:
    """One that fills gaps in the timestamps with silence ("async")."""
    return av.AudioResampler(sample_format, layout, rate, frame_size, options={"async": "1"})


def carried_packets(path: str | Path, output: OutputContainer, duration: float | None) -> Generator[av.Packet]:
    """Add a sound stream to ``output``, then yield the packets for it; the first sample of the sound is at time zero.

    Packets are the file's own if the codec is one of ``CARRIED_CODECS``, else FLAC. They end at ``duration`` seconds.
    """
    with open_media(path) as source:
        stream = sound_stream(source, path)
        first = next((frame for packet in source.demux(stream) for frame in decode(packet)), None)
    if first is None:
        raise InputError(f"{path} holds no sound: its duration is zero.")
    with open_media(path) as source:
        stream = sound_stream(source, path)
        if stream.codec_context.codec.canonical_name in CARRIED_CODECS:
            packets = _copied(source, stream, output, start=first.pts or 0)
        else:
            packets = _as_flac(source, stream, output, "s16" if first.format.bytes <= 2 else "s32")
        for packet in packets:
            if duration is not None and packet_time(packet) >= duration:
                break
            yield packet


def packet_time(packet: av.Packet) -> float:
    """Seconds at which ``packet`` starts."""
    assert packet.pts is not None and packet.time_base is not None
    return float(packet.pts * packet.time_base)


def _copied(source: InputContainer, stream: AudioStream, output: OutputContainer, start: int) -> Iterator[av.Packet]:
    copy = output.add_stream_from_template(stream)
    for packet in source.demux(stream):
        if packet.pts is not None and packet.dts is not None:  # the last one is empty
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
            yield packet


def _as_flac(
    source: InputContainer, stream: AudioStream, output: OutputContainer, sample_format: str
) -> Iterator[av.Packet]:
    """FLAC of 16 bits per sample, or for "s32" of 24, the upper ones."""
    layout = stream.layout if stream.layout.nb_channels <= 8 else "stereo"  # 8 is the most that FLAC holds
    copy = output.add_stream("flac", rate=stream.rate)
    copy.codec_context.format, copy.codec_context.layout = sample_format, layout
    copy.codec_context.open()  # now it knows its frame size
    resampler = _resampler(sample_format, layout, stream.rate, copy.codec_context.frame_size)
    frames = chain.from_iterable(map(decode, source.demux(stream)))
    samples = 0
    for frame in chain(frames, [None]):
        for part in resampler.resample(frame):
            part.pts, part.time_base = samples, Fraction(1, stream.rate)
            samples += part.samples
            yield from copy.encode(part)
    yield from copy.encode(None)
