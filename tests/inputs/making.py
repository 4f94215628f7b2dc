"""Files as people bring them, made on the fly."""

import io
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")


def ffmpeg(*words: str | Path) -> bytes:
    """Run the ffmpeg program; what it prints on standard output."""
    command = ["ffmpeg", "-v", "error", "-y", "-threads", "1", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout


def pictures(count: int, height: int, width: int) -> list[np.ndarray]:
    """Smooth pictures, each brighter than the one before, whose corners differ in colour."""
    y, x = np.mgrid[:height, :width] / [[[max(height, 2)]], [[max(width, 2)]]]
    base_HW3 = np.stack([60 + 120 * x, 60 + 120 * y, 180 - 60 * x - 60 * y], axis=-1)
    return [(base_HW3 + 40 * index / count).astype(np.uint8) for index in range(count)]


def write_clip(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "libx264",
    pixel_format: str = "yuv444p",
    fps: Fraction | int = 25,
    pose: tuple[int, int, int, int] | None = None,
    aspect: Fraction | None = None,
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
    colour: dict[str, int] | None = None,
) -> Path:
    """Encode frames as they are. ``pose``: a, b, c, d of the display matrix. ``times``: of the frames, milliseconds."""
    height, width, _ = frames[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "4", **(options or {})})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        for name, value in (colour or {}).items():
            setattr(stream.codec_context, name, value)
        if aspect is not None:
            stream.sample_aspect_ratio = aspect
        if pose is not None:
            a, b, c, d = (value << 16 for value in pose)
            stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if times is not None:
                picture.pts, picture.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def tones(seconds: float, rate: int = 48000, channels: int = 2) -> np.ndarray:
    """Another tone in every channel, loud enough for speech: float32 [C, n]."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * 220 * (1 + k) * t) for k in range(channels)]).astype(np.float32)


def write_wav(path: Path, samples_CN: np.ndarray, rate: int = 48000) -> Path:
    """16 bits, whole and honest."""
    ints = (samples_CN.T * 32767).round().astype("<i2")
    channels = len(samples_CN)
    fmt = b"fmt " + (16).to_bytes(4, "little") + (1).to_bytes(2, "little") + channels.to_bytes(2, "little")
    fmt += rate.to_bytes(4, "little") + (2 * channels * rate).to_bytes(4, "little")
    fmt += (2 * channels).to_bytes(2, "little") + (16).to_bytes(2, "little")
    data = ints.tobytes()
    body = b"WAVE" + fmt + b"data" + len(data).to_bytes(4, "little") + data
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    return path


def write_sound(
    path: Path, samples_CN: np.ndarray, codec: str, rate: int = 48000, layout: str = "stereo", start: float = 0
) -> Path:
    """Encode float samples, their timestamps delayed by ``start`` seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"strict": "-2"})
        assert isinstance(stream, AudioStream)
        context = stream.codec_context
        assert context.codec.audio_formats
        context.layout, context.format = layout, context.codec.audio_formats[0].name
        context.open()
        resampler = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or 1024)
        source = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_CN), "fltp", layout)
        source.rate, source.pts, source.time_base = rate, 0, Fraction(1, rate)
        for frame in resampler.resample(source) + resampler.resample(None):
            assert frame.pts is not None
            frame.pts += round(start * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def muxed(path: Path, *sources: Path, shift: float = 0.0) -> Path:
    """The first track of each source, packets untouched, those of the second one ``shift`` seconds later."""
    with av.open(str(path), "w") as output:
        inputs = [av.open(str(source)) for source in sources]
        copies = [output.add_stream_from_template(source.streams[0]) for source in inputs]
        packets = []
        for number, (source, copy) in enumerate(zip(inputs, copies, strict=True)):
            stream = source.streams[0]
            for packet in source.demux(stream):
                if packet.pts is None or packet.dts is None:
                    continue
                later = round((shift if number else 0) / packet.time_base)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = copy
                packets.append((float(packet.dts * packet.time_base), packet))
        for _, packet in sorted(packets, key=lambda each: each[0]):
            output.mux(packet)
        for source in inputs:
            source.close()
    return path


def damaged(data: bytes, seed: int, kind: str) -> bytes:
    """``data`` with bytes changed, left out, repeated, or its end cut off."""
    rng = np.random.default_rng(seed)
    out = bytearray(data)
    if kind == "cut":
        return bytes(out[: int(rng.integers(1, len(out)))])
    if kind == "flip":
        for at in rng.integers(0, len(out), max(1, len(out) // 500)):
            out[at] ^= int(rng.integers(1, 256))
        return bytes(out)
    at, length = int(rng.integers(0, len(out))), int(rng.integers(1, max(2, len(out) // 4)))
    if kind == "drop":
        del out[at : at + length]
    elif kind == "zero":
        out[at : at + length] = bytes(len(out[at : at + length]))
    elif kind == "repeat":
        out[at:at] = out[at : at + length]
    elif kind == "header":
        for at in rng.integers(0, min(len(out), 256), 4):
            out[at] = int(rng.choice([0, 255, 127, 128, int(rng.integers(256))]))
    return bytes(out)


def as_bytes(write, suffix: str, tmp_path: Path) -> bytes:
    path = tmp_path / f"whole{suffix}"
    write(path)
    return path.read_bytes()


def png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
