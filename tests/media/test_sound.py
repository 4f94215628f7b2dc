"""Sound: read in place, carried in place, and what is broken is told in one sentence."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from written import RED, SOUNDS, chirp, frames_like, packets, samples, write_sound, write_video

from skyreels_audio.media import AudioCodec, InputError, plan_carriage, probe_video, read_audio


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
