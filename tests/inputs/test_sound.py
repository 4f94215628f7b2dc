"""Sound as people have it: heard where it is, carried so that phones play it, its true length whatever headers say."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import damaged, ffmpeg, muxed, needs_ffmpeg, pictures, png, tones, write_clip, write_sound, write_wav

from skyreels_audio.media import AudioCodec, InputError, VideoWriter, plan_carriage, probe_video, read_audio, read_sound

quick = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def carried(path: Path, audio: Path, seconds: float, duration: float | None = None, codec: AudioCodec = "aac") -> Path:
    with VideoWriter(path, 32, 32, 25, audio, duration, audio_codec=codec) as writer:
        for frame in pictures(round(seconds * 25), 32, 32):
            writer.write(frame)
    return path


def onset(waveform_n: np.ndarray, rate: int = 16000) -> float:
    """Seconds until the sound is there."""
    return float(np.argmax(np.abs(waveform_n) > 0.05)) / rate


@quick
@given(
    rate=st.sampled_from([4000, 8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000]),
    channels=st.integers(1, 8),
    seconds=st.floats(0.11, 1.2),
)
def test_any_rate_and_layout_is_carried_to_the_frame(tmp_path_factory, rate, channels, seconds) -> None:
    folder = tmp_path_factory.mktemp("sound")
    path = write_wav(folder / "in.wav", tones(seconds, rate, channels), rate)
    waveform_n = read_audio(path)
    assert abs(len(waveform_n) / 16000 - seconds) < 2e-3 and np.abs(waveform_n).max() > 0.02
    video = carried(folder / "out.mp4", path, seconds + 0.04)
    again_n = read_audio(video)
    assert abs(len(again_n) - len(waveform_n)) <= 0.04 * 16000
    with av.open(str(video)) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name == "aac" and stream.rate in (44100, 48000)
        assert stream.layout.nb_channels == min(channels, 2)
    changes = plan_carriage(path).changes
    assert any("encoded anew" in change for change in changes)
    assert any("resampled" in change for change in changes) == (rate not in (44100, 48000))
    assert any("mixed down" in change for change in changes) == (channels > 2)
    if channels <= 2:
        n = min(len(again_n), len(waveform_n)) - 200
        assert np.abs(again_n[200:n] - waveform_n[200:n]).max() < 0.05


def test_a_telephone_mp3_is_encoded_anew_and_aac_is_not(tmp_path: Path) -> None:
    phone = write_sound(tmp_path / "a.mp3", tones(1, 8000, 1), "libmp3lame", 8000, "mono")
    assert "8000 → 48000 Hz" in " ".join(plan_carriage(phone).changes)
    assert abs(len(read_audio(carried(tmp_path / "out.mp4", phone, 1.2))) - len(read_audio(phone))) < 0.03 * 16000
    with pytest.raises(InputError, match=r"a\.mp3: an MP4 cannot hold its sound"):
        plan_carriage(phone, "copy")
    aac = write_sound(tmp_path / "a.m4a", tones(1), "aac")
    assert plan_carriage(aac).codec == "copy" and not plan_carriage(aac).changes


def test_opposite_channels_are_heard(tmp_path: Path) -> None:
    one = tones(0.5, 22050, 1)
    alike = read_sound(write_wav(tmp_path / "a.wav", np.concatenate([one, one]), 22050))
    opposite = read_sound(write_wav(tmp_path / "b.wav", np.concatenate([one, -one]), 22050))
    assert opposite.opposite and not alike.opposite and opposite.changes
    assert np.abs(opposite.waveform_n - alike.waveform_n).max() < 1e-3
    unlike = read_sound(write_wav(tmp_path / "c.wav", tones(0.5), 48000))  # two tones: stereo as usual
    assert not unlike.opposite


@quick
@given(at=st.floats(-0.3, 0.5), codec=st.sampled_from(["aac", "flac"]))
def test_a_videos_own_sound_stays_where_it_is(tmp_path_factory, at: float, codec: str) -> None:
    folder = tmp_path_factory.mktemp("offset")
    samples_CN = np.concatenate([np.zeros((1, 4800), np.float32), tones(0.6, channels=1)], axis=1)
    sound = write_sound(folder / "a.mka", samples_CN, codec, layout="mono")
    picture = write_clip(folder / "v.mkv", pictures(25, 32, 32), options={"bf": "0"})
    if at < 0:  # the picture is late
        video = muxed(folder / "in.mkv", sound, picture, shift=-at)
    else:
        video = muxed(folder / "in.mkv", picture, sound, shift=at)
    read = read_sound(video)
    assert read.offset == pytest.approx(at, abs=0.03)  # AAC begins with its encoder's delay
    assert onset(read.waveform_n) == pytest.approx(max(0, 0.1 + at), abs=0.03)
    out = carried(folder / "out.mp4", video, 1.2)
    assert onset(read_audio(out)) == pytest.approx(onset(read.waveform_n), abs=0.03)


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".m4a"), ("flac", ".flac"), ("libmp3lame", ".mp3")])
@pytest.mark.parametrize("wanted", ["aac", "flac", "copy"])
def test_trimmed_sound_ends_with_the_picture(tmp_path: Path, codec: str, suffix: str, wanted: AudioCodec) -> None:
    sound = write_sound(tmp_path / f"a{suffix}", tones(2, 16000, 1), codec, 16000, "mono")
    video = carried(tmp_path / "out.mp4", sound, 1, duration=1.0, codec=wanted)
    assert abs(len(read_audio(video)) / 16000 - 1) < 0.04
    with av.open(str(video)) as container:
        stream = container.streams.audio[0]
        assert stream.duration is not None and stream.time_base is not None
        assert abs(float(stream.duration * stream.time_base) - 1) < 0.04


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF - 36, 0x7FFFFFFF - 36])
def test_a_streamed_wav_is_as_long_as_its_data(tmp_path: Path, size: int) -> None:
    data = bytearray(write_wav(tmp_path / "a.wav", tones(0.7, 22050, 1), 22050).read_bytes())
    data[40:44] = size.to_bytes(4, "little")
    data[4:8] = ((size + 36) % 2**32 if size else 0).to_bytes(4, "little")
    (tmp_path / "streamed.wav").write_bytes(data)
    assert np.array_equal(read_audio(tmp_path / "streamed.wav"), read_audio(tmp_path / "a.wav"))


@needs_ffmpeg
@pytest.mark.parametrize("name", ["wav", "au", "caf", "flac", "matroska", "ogg", "adts", "mpegts", "mp3"])
def test_what_is_written_to_a_pipe_is_read_whole(tmp_path: Path, name: str) -> None:
    codec = {"flac": "flac", "ogg": "libopus", "adts": "aac", "mpegts": "aac", "mp3": "libmp3lame"}
    words = ["-f", "lavfi", "-i", "sine=duration=1.5:sample_rate=48000", "-f", name]
    words += ["-c:a", codec[name]] if name in codec else ["-c:a", "pcm_s16be"] if name == "au" else []
    path = tmp_path / "piped"
    path.write_bytes(ffmpeg(*words, "-"))
    assert len(read_audio(path)) / 16000 == pytest.approx(1.5, abs=0.09)
    assert len(read_audio(carried(tmp_path / "out.mp4", path, 1.6))) / 16000 == pytest.approx(1.5, abs=0.09)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libopus", ".webm"), ("aac", ".m4a"), ("libmp3lame", ".mp3"), ("flac", ".mka")]
)
@pytest.mark.parametrize("kind", ["flip", "zero", "drop", "cut"])
@pytest.mark.parametrize("seed", range(3))
def test_damage_is_refused_or_what_decodes_is_carried(
    tmp_path: Path, codec: str, suffix: str, kind: str, seed: int
) -> None:
    whole = write_sound(tmp_path / f"a{suffix}", tones(2), codec)
    path = tmp_path / f"b{suffix}"
    path.write_bytes(damaged(whole.read_bytes(), seed, kind))
    try:
        seconds = len(read_audio(path)) / 16000
        plan_carriage(path)
    except InputError as error:
        assert "\n" not in str(error) and f"b{suffix}" in str(error)
        return
    assert seconds < 2.2
    carried(tmp_path / "out.mp4", path, seconds)


def test_headers_that_make_no_sense_are_told(tmp_path: Path) -> None:
    data = bytearray(write_wav(tmp_path / "a.wav", tones(0.5, 16000, 1), 16000).read_bytes())
    fields = {"channels": slice(22, 24), "rate": slice(24, 28), "block": slice(32, 34), "bits": slice(34, 36)}
    for name, where in fields.items():
        spoiled = bytearray(data)
        spoiled[where] = bytes(where.stop - where.start)
        path = tmp_path / f"{name}.wav"
        path.write_bytes(spoiled)
        try:
            assert len(read_audio(path)) == 8000
        except InputError as error:
            assert f"{name}.wav" in str(error) and "\n" not in str(error)


def test_a_pause_is_silence_and_a_broken_clock_is_refused(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.mka", tones(1, 16000, 1), "flac", 16000, "mono")
    for name, pause in {"short": 2, "endless": 9000}.items():
        with av.open(str(sound)) as source, av.open(str(tmp_path / f"{name}.mka"), "w") as output:
            copy = output.add_stream_from_template(source.streams.audio[0])
            for packet in source.demux(audio=0):
                if packet.pts is not None and packet.dts is not None:
                    late = round(pause / packet.time_base) if packet.pts * packet.time_base > Fraction(1, 2) else 0
                    packet.pts, packet.dts, packet.stream = packet.pts + late, packet.dts + late, copy
                    output.mux(packet)
    read = read_sound(tmp_path / "short.mka")
    assert len(read.waveform_n) / 16000 == pytest.approx(3, abs=0.05) and read.lost == pytest.approx(2, abs=0.05)
    with pytest.raises(InputError, match="pauses for 9000 s"):
        read_audio(tmp_path / "endless.mka")


@needs_ffmpeg
def test_the_delay_of_an_mp3_is_left_out_as_ffmpeg_does(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mp3", tones(1.3, 44100, 1), "libmp3lame", 44100, "mono")
    theirs = np.frombuffer(ffmpeg("-i", path, "-f", "f32le", "-ar", "44100", "-ac", "1", "-"), np.float32)
    ours = read_audio(path, 44100)
    assert abs(len(ours) - len(theirs)) < 1300  # 5.1 leaves the last frame's padding
    assert np.abs(ours[: len(theirs)] - theirs[: len(ours)]).max() < 1e-3


@needs_ffmpeg
def test_the_track_that_ffmpeg_would_take_is_used(tmp_path: Path) -> None:
    first, second = "sine=frequency=300:duration=1", "aevalsrc=0.2*sin(3000*t)|0.2*sin(3000*t):d=1:s=48000"
    words = ["-f", "lavfi", "-i", first, "-f", "lavfi", "-i", second, "-map", "0", "-map", "1"]
    ffmpeg(*words, "-c:a", "flac", "-disposition:a:1", "default", "-disposition:a:0", "0", tmp_path / "two.mka")
    ffmpeg("-i", tmp_path / "two.mka", "-ar", "16000", "-ac", "1", tmp_path / "theirs.wav")
    read = read_sound(tmp_path / "two.mka")
    assert read.tracks == 2 and any("2 sound tracks" in change for change in read.changes)
    assert np.abs(read.waveform_n[:15000] - read_audio(tmp_path / "theirs.wav")[:15000]).max() < 0.02


@needs_ffmpeg
def test_an_edit_list_moves_the_sound_as_in_ffmpeg(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=2", "-f", "lavfi", "-i", "sine=duration=2", whole)
    ffmpeg("-ss", "0.5", "-i", whole, "-c", "copy", tmp_path / "cut.mp4")  # cut between key frames: by edit list
    seconds = len(read_audio(tmp_path / "cut.mp4")) / 16000
    theirs = ffmpeg("-i", tmp_path / "cut.mp4", "-map", "0:a", "-f", "s16le", "-ar", "16000", "-ac", "1", "-")
    assert seconds == pytest.approx(len(theirs) / 2 / 16000, abs=0.06)


@pytest.mark.parametrize("name", ["list.m3u8", "list.wav", "list.ffconcat", "s%d.png", "list.mpd", "list.sdp"])
def test_lists_of_other_files_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's file is read because another one names it."""
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "secret.wav", tones(0.5))
    for number in range(3):
        (tmp_path / f"s{number}.png").write_bytes(png(pictures(1, 8, 8)[0]))
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n"
    dash = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period/></MPD>'
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n"
    words = {"list.m3u8": hls, "list.mpd": dash, "list.sdp": sdp}.get(name, "ffconcat version 1.0\nfile secret.wav\n")
    Path(name).write_bytes(png(pictures(1, 8, 8)[0]) if name.startswith("s%") else words.encode())
    for read in (read_audio, probe_video):
        with pytest.raises(InputError):
            read(Path(name))


@pytest.mark.parametrize(("rate", "channels"), [(192000, 2), (48000, 6), (8000, 1)])
def test_a_flac_whose_header_counts_no_samples_is_as_long_as_its_data(tmp_path: Path, rate: int, channels: int) -> None:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    whole = write_sound(tmp_path / "a.flac", tones(0.5, rate, channels), "flac", rate, layout)
    data = bytearray(whole.read_bytes())
    data[21] &= 0xF0  # the last 36 bits of STREAMINFO's length
    data[22:26] = bytes(4)
    (tmp_path / "b.flac").write_bytes(data)
    assert np.array_equal(read_audio(tmp_path / "b.flac"), read_audio(whole))
    (tmp_path / "c.flac").write_bytes(data[:42])
    with pytest.raises(InputError, match=r"c\.flac holds no sound"):
        read_audio(tmp_path / "c.flac")
