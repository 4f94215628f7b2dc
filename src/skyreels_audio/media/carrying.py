"""Sound carried over to an MP4: as it is where that plays everywhere, else encoded anew."""

import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Literal, get_args

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer

from skyreels_audio.media.files import JOINED, InputError, open_media
from skyreels_audio.media.sound import SoundDecoder, sound_stream

AudioCodec = Literal["aac", "copy", "flac"]
AAC_RATES = (44100, 48000)  # Hz; sound of any other rate is resampled to the higher one, which loses nothing
AAC_BITS = 160_000  # per second and channel: at this rate nobody tells AAC from its source
FLAC_CHANNELS = 8  # the most that FLAC holds


@dataclass(frozen=True)
class Carriage:
    """How the sound of a file goes into an MP4: decided, and tried, before any time is spent.

    Attributes:
        codec: "copy" (packets untouched), "aac" or "flac".
        rate, layout, sample_format: of what is encoded anew.
        changes: what happens to the sound, as phrases.
    """

    codec: AudioCodec
    rate: int
    layout: str
    sample_format: str
    changes: tuple[str, ...] = ()


def plan_carriage(path: str | Path, wanted: AudioCodec = "aac") -> Carriage:
    """Decide how the sound of ``path`` is carried.

    "aac" copies AAC and encodes all else as AAC at a high rate: what phones and browsers play in an MP4. "flac" keeps
    every sample, and "copy" every packet, of whatever an MP4 can hold, though not every player plays them.
    Raises ``InputError`` if there is no sound, or an MP4 cannot hold what is to be copied.
    """
    if wanted not in get_args(AudioCodec):
        raise InputError(f"the sound can be carried as {', '.join(get_args(AudioCodec))}, not {wanted!r}.")
    decoder = SoundDecoder(path, "flt")
    stored, rate = decoder.codec, decoder.rate
    fault = _fault_of_copy(path)
    if wanted == "copy" and fault:
        raise InputError(f"{path}: an MP4 cannot hold its sound ({stored}, {fault}); carry it as aac or flac.")
    if wanted == "copy" or (wanted == "aac" and stored == "aac" and not fault):
        return Carriage("copy", rate, decoder.stored_layout.name, "")
    if wanted == "flac":
        many = decoder.channels > FLAC_CHANNELS
        layout = "stereo" if many else decoder.stored_layout.name
        return Carriage(
            "flac", rate, layout, "s16" if decoder.sample_bytes <= 2 else "s32", _changes(decoder, "FLAC", rate, many)
        )
    anew = rate if rate in AAC_RATES else max(AAC_RATES)
    many = decoder.channels > 2
    layout = "mono" if decoder.channels == 1 else "stereo"
    name = f"AAC, {AAC_BITS // 1000 * min(decoder.channels, 2)} kb/s"
    return Carriage("aac", anew, layout, "flt", _changes(decoder, name, anew, many))


def _changes(decoder: SoundDecoder, name: str, rate: int, mixed_down: bool) -> tuple[str, ...]:
    said = [
        (True, f"sound encoded anew ({decoder.codec} → {name})"),
        (rate != decoder.rate, f"sound resampled ({decoder.rate} → {rate} Hz)"),
        (mixed_down, f"sound mixed down ({decoder.channels} → 2 channels)"),
    ]
    return tuple(phrase for holds, phrase in said if holds)


def _fault_of_copy(path: str | Path) -> str | None:
    """Why an MP4 cannot hold the packets of ``path``, by trying it with a few; None if it can."""
    try:
        with open_media(path) as source, av.open(io.BytesIO(), "w", format="mp4") as trial:
            for count, packet in enumerate(_copied(source, sound_stream(source, path), trial, start=0)):
                trial.mux(packet)
                if count == 50:
                    break
    except InputError as error:  # FFmpeg's words within, about reading or writing
        return str(error.__cause__ or error)
    except (av.error.FFmpegError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def carried_packets(
    path: str | Path, output: OutputContainer, duration: float | None, carriage: Carriage
) -> Generator[av.Packet]:
    """Add a sound stream to ``output``, then yield the packets for it, with the sound's own offset from the picture.

    They end at ``duration`` seconds: to the sample where the sound is encoded, to half a packet where it is copied.
    """
    decoder = SoundDecoder(path, carriage.sample_format or "flt", carriage.rate, carriage.layout)
    if carriage.codec != "copy":
        yield from _encoded(decoder, output, duration, carriage)
        return
    with open_media(path) as source:
        stream = sound_stream(source, path)
        assert stream.time_base is not None
        start = decoder.first_pts - round(decoder.offset / stream.time_base)
        for packet in _copied(source, stream, output, start):
            seconds = float((packet.duration or 0) * stream.time_base)
            if packet_time(packet) + seconds <= 0 and decoder.offset < 0:
                continue  # before the picture
            left = inf if duration is None else duration - packet_time(packet)
            if left < seconds / 2:
                break
            if left < seconds:
                packet.duration = round(left / stream.time_base)
            yield packet


def packet_time(packet: av.Packet) -> float:
    """Seconds at which ``packet`` starts."""
    assert packet.pts is not None and packet.time_base is not None
    return float(packet.pts * packet.time_base)


def _copied(source: InputContainer, stream: AudioStream, output: OutputContainer, start: int) -> Iterator[av.Packet]:
    copy = output.add_stream_from_template(stream)
    end = None
    for packet in source.demux(stream):
        if packet.pts is not None and packet.dts is not None:  # the last one is empty
            if end is not None and packet.dts < start + end - JOINED / packet.time_base:
                start = packet.dts - end  # the next of files that were joined begins
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
            end = packet.dts + (packet.duration or 0)
            yield packet


def _encoded(
    decoder: SoundDecoder, output: OutputContainer, duration: float | None, carriage: Carriage
) -> Iterator[av.Packet]:
    stream = output.add_stream(carriage.codec, rate=carriage.rate)
    assert isinstance(stream, AudioStream)
    context = stream.codec_context
    context.layout = carriage.layout
    context.format = "fltp" if carriage.codec == "aac" else carriage.sample_format
    if carriage.codec == "aac":
        context.bit_rate = AAC_BITS * context.layout.nb_channels
    context.open()  # now it knows its frame size
    samples = 0
    most = None if duration is None else round(duration * carriage.rate)
    for chunk_nC in _in_pieces(decoder, context.frame_size, most):
        planar = context.format.is_planar
        data = chunk_nC.T if planar else chunk_nC.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), context.format.name, context.layout.name)
        frame.rate, frame.pts, frame.time_base = carriage.rate, samples, Fraction(1, carriage.rate)
        samples += frame.samples
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _in_pieces(chunks: SoundDecoder, size: int, most: int | None) -> Iterator[np.ndarray]:
    """The same samples in pieces of ``size``, the last one shorter; at ``most`` so many in all."""
    held: list[np.ndarray] = []
    count, left = 0, inf if most is None else most
    for chunk in chunks:
        chunk = chunk[: int(min(len(chunk), left))]
        left -= len(chunk)
        held.append(chunk)
        count += len(chunk)
        if count >= size:
            together = np.concatenate(held)
            whole = count - count % size
            yield from together[:whole].reshape(-1, size, together.shape[1])
            held, count = [together[whole:]], count - whole
        if not left:
            break
    if count:
        yield np.concatenate(held)
