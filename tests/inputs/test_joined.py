"""Files joined end to end (recorders and ``cat`` make them) begin their clock anew; edit lists hide frames."""

from pathlib import Path

import numpy as np
import pytest
from making import ffmpeg, muxed, needs_ffmpeg, pictures, tones, write_clip, write_sound

from skyreels_audio.media import AudioCodec, VideoWriter, plan_carriage, probe_video, read_audio, read_video

FRAMES = 25


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transport stream of a second, twice."""
    folder = tmp_path_factory.mktemp("joined")
    picture = write_clip(folder / "picture.ts", pictures(FRAMES, 48, 64), pixel_format="yuv420p")
    sound = write_sound(folder / "sound.ts", tones(1.0), "aac")
    once = muxed(folder / "once.ts", picture, sound)
    (folder / "twice.ts").write_bytes(2 * once.read_bytes())
    return folder / "twice.ts"


def test_every_frame_of_joined_videos_is_shown(joined: Path) -> None:
    assert not probe_video(joined).variable
    frames = np.stack(list(read_video(joined, FRAMES))).mean((1, 2, 3))
    assert len(frames) == 2 * FRAMES
    assert np.abs(frames[FRAMES:] - frames[:FRAMES]).max() < 1


@pytest.mark.parametrize("codec", ["aac", "flac", "copy"])
def test_joined_sound_is_read_and_carried_to_its_end(joined: Path, codec: AudioCodec, tmp_path: Path) -> None:
    waveform_n = read_audio(joined)
    assert 1.95 < len(waveform_n) / 16000 < 2.05
    assert np.square(waveform_n[-8000:]).mean() > 0.5 * np.square(waveform_n[:8000]).mean()
    carriage = plan_carriage(joined, codec)
    assert carriage.codec == ("copy" if codec == "aac" else codec)
    with VideoWriter(tmp_path / "out.mp4", 64, 48, FRAMES, joined, audio_codec=codec) as writer:
        for frame in pictures(2 * FRAMES, 48, 64):
            writer.write(frame)
    carried_n = read_audio(tmp_path / "out.mp4")[: len(waveform_n)]
    assert np.abs(carried_n - waveform_n[: len(carried_n)])[100:-100].max() < 0.05


def test_chained_streams_are_heard_to_the_end(tmp_path: Path) -> None:
    once = write_sound(tmp_path / "once.opus", tones(1.0), "libopus")
    (tmp_path / "twice.opus").write_bytes(2 * once.read_bytes())
    length = len(read_audio(once)) / 16000
    assert len(read_audio(tmp_path / "twice.opus")) / 16000 == pytest.approx(2 * length, abs=0.03)


@needs_ffmpeg
def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path: Path) -> None:
    """A phone's cut keeps what comes before it, from the key frame on, and hides it."""
    whole = write_clip(tmp_path / "whole.mov", pictures(FRAMES, 48, 64), pixel_format="yuv420p", options={"bf": "2"})
    ffmpeg("-ss", "0.2", "-i", whole, "-c", "copy", tmp_path / "cut.mov")
    assert probe_video(tmp_path / "cut.mov").frames == len(list(read_video(tmp_path / "cut.mov"))) == FRAMES - 5
