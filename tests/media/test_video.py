"""Video: what is written reads back, plays, and nothing is left of what fails."""

from pathlib import Path

import av
import numpy as np
import pytest
from written import BLUE, GREEN, RED, WHITE, chirp, frames_like, packets, turn, write_sound, write_video

from skyreels_audio.media import InputError, VideoWriter, probe_video, read_audio, read_video


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
