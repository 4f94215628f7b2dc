"""Sounds and videos that tests write."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from skyreels_audio.media import AudioCodec, VideoWriter

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
SOUNDS = {  # file name → codec
    "a.wav": "pcm_s16le",
    "b.wav": "pcm_s24le",
    "c.wav": "pcm_f32le",
    "d.wav": "pcm_u8",
    "e.mp3": "libmp3lame",
    "f.m4a": "aac",
    "g.aac": "aac",
    "h.ts": "aac",
    "i.opus": "libopus",
    "j.webm": "libopus",
    "k.flac": "flac",
    "l.m4a": "alac",
    "m.ogg": "vorbis",
}


def chirp(seconds: float, rate: int = 48000) -> np.ndarray:
    """Two channels, int32 over its whole range, that resemble themselves at no other time."""
    t = np.arange(round(seconds * rate)) / rate
    wave_n = 0.4 * np.sin(2 * np.pi * (200 + 400 * t) * t)
    return (np.stack([wave_n, 0.5 * wave_n]) * (2**31 - 1)).astype(np.int32)


def write_sound(path: Path, codec: str, samples_CN: np.ndarray, rate: int = 48000, start: int = 0) -> Path:
    """Encode int32 samples; ``start`` delays their timestamps by so many samples."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"strict": "-2"})  # Vorbis is called experimental
        context = stream.codec_context
        assert isinstance(context, av.AudioCodecContext) and context.codec.audio_formats
        context.layout = "stereo"
        context.format = context.codec.audio_formats[-1 if codec == "alac" else 0].name
        context.open()
        resampler = av.AudioResampler(context.format, "stereo", rate, frame_size=context.frame_size or 1024)
        source = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_CN.T.reshape(1, -1)), "s32", "stereo")
        source.rate, source.pts, source.time_base = rate, 0, Fraction(1, rate)
        for frame in resampler.resample(source) + resampler.resample(None):
            assert frame.pts is not None
            frame.pts += start
            container.mux(context.encode(frame))
        container.mux(context.encode(None))
    return path


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def samples(path: Path) -> np.ndarray:
    """Decoded as they are, in the codec's own format, one row per channel."""
    with av.open(str(path)) as container:
        arrays = [(frame.to_ndarray(), frame.format.is_planar) for frame in container.decode(audio=0)]
    planar = arrays[0][1]
    return np.concatenate([array if planar else array.reshape(-1, 2).T for array, _ in arrays], axis=1)


def frames_like(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Smooth pictures, each of another brightness."""
    ramp_HW3 = np.linspace(40, 120, height * width * 3).reshape(height, width, 3)
    return [(ramp_HW3 + 100 * index / count).astype(np.uint8) for index in range(count)]


def write_video(
    path: Path,
    frames: list[np.ndarray],
    fps: float = 25,
    audio: Path | None = None,
    audio_codec: AudioCodec = "aac",
) -> Path:
    height, width, _ = frames[0].shape
    with VideoWriter(path, width, height, fps, audio, audio_codec=audio_codec) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def turn(path: Path, matrix: tuple[int, ...]) -> Path:
    """Set the 2×2 part of the display matrix in the track header of the picture."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of times, layer, volume
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
