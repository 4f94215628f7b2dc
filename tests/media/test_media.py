"""Pictures, sound and video: what goes in comes out, and what is broken is told in one sentence."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from skyreels_audio.media import (
    AudioCodec,
    InputError,
    VideoWriter,
    contact_sheet,
    plan_carriage,
    probe_video,
    read_audio,
    read_image,
    read_video,
    write_image,
)

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


# Pictures


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_stands_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (40, 24), WHITE)
    upright.paste(RED, (0, 0, 20, 12))
    upright.paste(BLUE, (20, 0, 40, 12))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that stores an upright picture under the tag
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.array(upright))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (8, 4), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 4, 4))
    if mode == "P":
        palette = Image.new("P", (8, 4), 1)
        palette.putpalette([0, 0, 0, *RED])
        palette.paste(0, (0, 0, 4, 4))
        palette.save(tmp_path / "a.png", transparency=0)
    elif mode == "RGB":  # one colour declared transparent
        picture.convert("RGB").save(tmp_path / "a.png", transparency=(0, 0, 0))
    else:
        picture.convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image[:, :4] == 255).all()
    assert (image[:, 4:, 1] < 100).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (4, 1))
    for name in ("a.png", "a.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name)[0, :, 1], np.arange(256))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "F"])
def test_any_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGB", (8, 8), WHITE)
    if mode == "P":
        picture = picture.quantize(4)
    elif mode == "F":
        picture = Image.fromarray(np.ones((8, 8), np.float32))
    else:
        picture = picture.convert(mode)
    name = "a.tif" if mode in ("F", "YCbCr") else "a.jpg" if mode == "CMYK" else "a.png"
    packed = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}  # Pillow 12 cannot read back its own raw YCbCr
    picture.save(tmp_path / name, **packed)
    image = read_image(tmp_path / name)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8 and image.min() > 250


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), GREEN), Image.new("RGB", (8, 8), BLUE)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert read_image(tmp_path / "a.gif")[4, 4].tolist() == [0, 255, 0]


def test_bad_pictures_are_told_in_one_sentence(tmp_path: Path) -> None:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole, "PNG")
    bomb = b"P6 60000 60000 255 "
    cases = {"text.png": b"not a picture", "empty.png": b"", "cut.png": whole.getvalue()[:4000], "bomb.ppm": bomb}
    reasons = {"text.png": "not a picture", "empty.png": "empty", "cut.png": "truncated", "bomb.ppm": "megapixels"}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=reasons[name]) as error:
            read_image(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="folder"):
        read_image(tmp_path)


def test_a_contact_sheet_shows_every_frame() -> None:
    frames = frames_like(5, 6, 8)
    sheet = contact_sheet(frames, columns=3, gap=2)
    assert sheet.shape == (2 * 6 + 2, 3 * 8 + 2 * 2, 3)
    assert np.array_equal(sheet[8:14, 10:18], frames[4])
    assert (sheet[8:14, 20:] == 255).all()


def test_a_written_picture_reads_back(tmp_path: Path) -> None:
    image = frames_like(1)[0]
    write_image(tmp_path / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    with pytest.raises(InputError, match=r"none/a\.png cannot be written"):
        write_image(tmp_path / "none" / "a.png", image)


# Sound


@pytest.mark.parametrize("codec", ["aac", "flac", "copy"])
@pytest.mark.parametrize("name", SOUNDS)
def test_sound_reads_in_place_and_is_carried_in_place(tmp_path: Path, name: str, codec: AudioCodec) -> None:
    path = write_sound(tmp_path / name, SOUNDS[name], chirp(1.3))
    waveform_n = read_audio(path)
    lossy = SOUNDS[name] in ("libmp3lame", "aac", "libopus", "vorbis")
    assert abs(len(waveform_n) / 16000 - 1.3) < (0.06 if lossy else 1e-3)
    if codec == "copy" and SOUNDS[name] in ("pcm_s16le", "pcm_f32le", "pcm_u8"):
        with pytest.raises(InputError, match="cannot hold its sound"):
            plan_carriage(path, codec)
        return

    video = write_video(tmp_path / "out.mp4", frames_like(33), audio=path, audio_codec=codec)
    with av.open(str(video)) as container:
        stored = container.streams.audio[0].codec_context.codec.canonical_name
    if codec == "copy" or codec == SOUNDS[name] == "aac":
        # There only the framing goes (ADTS), and PCM has none.
        assert packets(video) == packets(path) or name in ("b.wav", "g.aac", "h.ts")
        assert not plan_carriage(path, codec).changes
    else:
        assert stored == codec and "encoded anew" in plan_carriage(path, codec).changes[0]
    if codec == "flac" and SOUNDS[name] in ("pcm_s16le", "pcm_s24le"):
        assert np.array_equal(samples(video), samples(path))  # every bit (24 are kept in the upper bits of 32)
    carried_n = read_audio(video)
    end = min(len(carried_n), len(waveform_n)) - 100  # the resampler's last samples know that the sound ends
    lags = range(-16, 17) if name == "j.webm" else [0]  # WebM keeps time in milliseconds
    assert min(np.abs(carried_n[20 + lag : end + lag] - waveform_n[20:end]).max() for lag in lags) < 0.03
    assert 0 <= len(carried_n) - len(waveform_n) < 0.03 * 16000


def test_sound_is_the_mean_of_its_channels_at_any_rate(tmp_path: Path) -> None:
    samples_CN = chirp(0.5, 44100)
    path = write_sound(tmp_path / "a.wav", "pcm_s16le", samples_CN, rate=44100)
    assert np.abs(read_audio(path, 44100) - samples_CN.mean(0) / 2**31).max() < 1e-4
    assert len(read_audio(path)) == 8000


def test_a_late_sound_track_starts_at_its_first_sample(tmp_path: Path) -> None:
    on_time = write_sound(tmp_path / "a.mka", "flac", chirp(0.5))
    late = write_sound(tmp_path / "b.mka", "flac", chirp(0.5), start=48000)
    assert np.allclose(read_audio(late), read_audio(on_time))
    video = write_video(tmp_path / "out.mp4", frames_like(13), audio=late)
    carried_n = read_audio(video)[: 8000 - 16]
    assert np.abs(carried_n - read_audio(on_time)[: 8000 - 16]).max() < 0.03


def test_a_gap_in_the_timestamps_is_silence(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mka", "pcm_s16le", chirp(0.5, 16000), rate=16000)
    with av.open(str(path)) as source, av.open(str(tmp_path / "gap.mka"), "w") as output:
        copy = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.pts is not None and packet.dts is not None:
                delay = 500 if packet.pts > 250 else 0  # milliseconds
                packet.pts, packet.dts, packet.stream = packet.pts + delay, packet.dts + delay, copy
                output.mux(packet)
    assert abs(len(read_audio(tmp_path / "gap.mka")) - 16000) < 32


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.mp3", "libmp3lame", chirp(0.5))
    cover = io.BytesIO()
    Image.new("RGB", (16, 16), RED).save(cover, "JPEG")
    picture = b"\0image/jpeg\0\x03\0" + cover.getvalue()
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    path = tmp_path / "cover.mp3"
    path.write_bytes(b"ID3\x03\0\0" + size + frame + sound.read_bytes())
    with av.open(str(path)) as container:
        assert container.streams.video  # FFmpeg shows the cover as a video stream
    with pytest.raises(InputError, match="no video"):
        probe_video(path)
    assert np.array_equal(read_audio(path), read_audio(sound))
    video = write_video(tmp_path / "out.mp4", frames_like(13), audio=path)
    with av.open(str(video)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_bad_sound_is_told_in_one_sentence(tmp_path: Path) -> None:
    whole = {name: write_sound(tmp_path / name, SOUNDS[name], chirp(4)).read_bytes() for name in ("a.wav", "k.flac")}
    whole |= {"e.mp3": write_sound(tmp_path / "e.mp3", "libmp3lame", chirp(4)).read_bytes()}
    whole |= {"f.m4a": write_sound(tmp_path / "f.m4a", "aac", chirp(4)).read_bytes()}
    mute = write_video(tmp_path / "mute.mp4", frames_like(3)).read_bytes()
    png = io.BytesIO()
    Image.new("RGB", (16, 16), RED).save(png, "PNG")
    cases = {"text.mp3": (b"hello " * 99, "no sound"), "empty.wav": (b"", "empty"), "mute.mp4": (mute, "no sound")}
    cases |= {f"cut.{name}": (data[: len(data) // 2], "truncated") for name, data in whole.items()}
    cases |= {"header.wav": (whole["a.wav"][:78], "no sound"), "picture.png": (png.getvalue(), "no sound")}
    cases |= {"zero.flac": (whole["k.flac"][: whole["k.flac"].index(b"\xff\xf8")], "zero")}
    for name, (data, reason) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=reason) as error:
            read_audio(path)
        assert name in str(error.value) and "\n" not in str(error.value)


# Video


def test_a_video_reads_back_as_written(tmp_path: Path) -> None:
    frames = frames_like(10)
    path = write_video(tmp_path / "a.mp4", frames, fps=30000 / 1001)
    info = probe_video(path)
    assert (info.width, info.height, info.frames, info.has_audio, bool(info.pose)) == (64, 48, 10, False, False)
    assert info.fps == pytest.approx(30000 / 1001) and info.duration == pytest.approx(10 * 1001 / 30000, abs=1e-3)
    read = list(read_video(path))
    assert len(read) == 10
    assert np.abs(np.stack(read).astype(int) - np.stack(frames)).mean() < 1.5


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, WHITE, (200, 120, 90)])
def test_colours_survive(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    path = write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), colour, np.uint8)] * 2)
    assert np.abs(next(read_video(path))[16, 16].astype(int) - colour).max() <= 4


def test_a_video_plays_in_a_browser_and_says_what_it_is(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames_like(5), audio=write_sound(tmp_path / "a.m4a", "aac", chirp(0.2)))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert "AI-generated" in container.metadata["comment"]
        assert "creation_time" not in container.metadata
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.wav", "pcm_s16le", chirp(1.5))
    first, second = (write_video(tmp_path / name, frames_like(38), audio=sound) for name in ("a.mp4", "b.mp4"))
    assert first.read_bytes() == second.read_bytes()


def test_the_sound_ends_with_the_given_duration(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.wav", "pcm_s16le", chirp(3))
    with VideoWriter(tmp_path / "out.mp4", 64, 48, 25, sound, duration=1) as writer:
        for frame in frames_like(25):
            writer.write(frame)
    assert len(read_audio(tmp_path / "out.mp4")) / 16000 == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("seconds", "count"), [(0.3, 50), (3.0, 10)])
def test_sound_and_picture_may_differ_in_length(tmp_path: Path, seconds: float, count: int) -> None:
    path = write_sound(tmp_path / "a.m4a", "aac", chirp(seconds))
    video = write_video(tmp_path / "out.mp4", frames_like(count), audio=path)
    assert packets(video) == packets(path)
    assert len(list(read_video(video))) == count


@pytest.mark.parametrize(("fps", "expected"), [(10, [0, 3, 5, 8]), (50, [k // 2 for k in range(20)])])
def test_frames_are_taken_at_another_rate(tmp_path: Path, fps: float, expected: list[int]) -> None:
    path = write_video(tmp_path / "a.mp4", frames_like(10), fps=25)
    stored = list(read_video(path))
    shown = [
        int(np.argmin([np.abs(frame.astype(int) - other).sum() for other in stored])) for frame in read_video(path, fps)
    ]
    assert shown == [int(k * 25 / fps + 1e-6) for k in range(len(expected))]


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_turned_video_stands_upright(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    path = write_video(tmp_path / "a.mp4", frames_like(3))
    stored = next(read_video(path))
    turn(path, matrix)
    upright = next(read_video(path))
    assert np.array_equal(upright, np.rot90(stored, turns))
    info = probe_video(path)
    assert (info.height, info.width) == upright.shape[:2]
    assert info.pose.words.startswith("turned by ")


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.wav", "pcm_s16le", chirp(0.5))
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 64, 48, 25, sound) as writer:
        writer.write(frames_like(1)[0])
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError, match="elsewhere"), VideoWriter(tmp_path / "out.mp4", 64, 48, 25, sound):
        raise FileNotFoundError("elsewhere")  # no fault of the output
    with (
        pytest.raises(InputError, match="no sound"),
        VideoWriter(tmp_path / "out.mp4", 64, 48, 25, write_video(tmp_path / "mute.mp4", frames_like(2))),
    ):
        pass
    with pytest.raises(InputError, match="cannot be written"), VideoWriter(tmp_path / "none" / "out.mp4", 64, 48, 25):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "mute.mp4"]


def test_a_failed_write_leaves_the_older_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "out.mp4", frames_like(2))
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), VideoWriter(path, 64, 48, 25) as writer:
        writer.write(frames_like(1)[0])
        raise ZeroDivisionError
    assert path.read_bytes() == before


def test_wrong_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        VideoWriter(tmp_path / "out.mp4", 63, 48, 25)
    with pytest.raises(ValueError, match="does not fit"), VideoWriter(tmp_path / "out.mp4", 64, 48, 25) as writer:
        writer.write(frames_like(1, 50, 64)[0])
