"""Frames as stored: what is not repainted keeps its samples through a whole new file."""

from pathlib import Path

import numpy as np
import pytest

from skyreels_audio.media import Colour, VideoWriter, probe_video, read_stored, read_video
from skyreels_audio.media.frames import Pose, StoredFrame, to_yuv420p

SIZE = 48, 64


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "noise.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, SIZE[1], SIZE[0], 25, crf=10) as writer:
        for _ in range(5):
            writer.write(rng.integers(40, 200, (*SIZE, 3), dtype=np.uint8))
    return path


def test_it_looks_as_read(video: Path) -> None:
    for stored, shown in zip(read_stored(video), read_video(video), strict=True):
        assert stored.size == SIZE and stored.colour == Colour()
        assert np.array_equal(stored.rgb(), shown)


def test_repainting_nothing_is_nothing(video: Path) -> None:
    frame = next(read_stored(video))
    assert frame.repainted(frame.rgb()) is frame


def test_repainting_a_region_leaves_the_other_samples(video: Path) -> None:
    frame = next(read_stored(video))
    wanted = frame.rgb()
    wanted[10:20, 30:50] = 90, 120, 60
    repainted = frame.repainted(wanted)
    inside = np.zeros(SIZE, bool)
    inside[10:20, 30:50] = True
    assert np.array_equal(repainted.planes[0][~inside], frame.planes[0][~inside])
    assert abs(repainted.rgb()[12:18, 32:48].astype(int) - [90, 120, 60]).max() <= 4
    halves = inside.reshape(SIZE[0] // 2, 2, SIZE[1] // 2, 2).any(axis=(1, 3))
    for painted, stored in zip(repainted.planes[1:], frame.planes[1:], strict=True):
        assert np.array_equal(painted[~halves], stored[~halves])


def test_a_painted_part_is_converted_as_in_the_whole_picture() -> None:
    rng = np.random.default_rng(1)
    planes = rng.integers(40, 200, (300, 420), np.uint8), *rng.integers(60, 190, (2, 150, 210), np.uint8)
    frame = StoredFrame(planes, Colour())
    for rows, columns in (((97, 181), (131, 290)), ((0, 5), (0, 420)), ((280, 300), (401, 420))):
        wanted = frame.rgb()
        wanted[slice(*rows), slice(*columns)] ^= 32  # every pixel there is another one
        whole = to_yuv420p(wanted, frame.colour).to_ndarray()[:300]
        shown = frame.repainted(wanted).planes[0][slice(*rows), slice(*columns)]
        assert np.array_equal(shown, whole[slice(*rows), slice(*columns)])


def test_stored_frames_written_lose_less_than_pictures(video: Path, tmp_path: Path) -> None:
    frames = list(read_stored(video))
    loss = {}
    for name, written in {"stored": frames, "pictures": [frame.rgb() for frame in frames]}.items():
        with VideoWriter(tmp_path / name, SIZE[1], SIZE[0], 25, crf=1, colour=frames[0].colour) as writer:
            for frame in written:
                writer.write(frame)
        again = np.stack(list(read_video(tmp_path / name))).astype(float)
        loss[name] = float(np.square(again - np.stack([frame.rgb() for frame in frames])).mean())
    assert loss["stored"] < loss["pictures"] / 3


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("flipped", [False, True])
def test_each_pose_puts_pixels_where_the_matrix_says(transposed: bool, mirrored: bool, flipped: bool) -> None:
    pose = Pose(transposed, mirrored, flipped)
    stored = np.arange(6).reshape(2, 3)
    shown = pose.upright(stored)
    y, x = np.mgrid[:2, :3]
    right, down = (y, x) if transposed else (x, y)
    right = right.max() - right if mirrored else right
    down = down.max() - down if flipped else down
    assert np.array_equal(shown[down, right], stored)
    assert bool(pose.words) == (transposed or mirrored or flipped) == bool(pose)


def test_a_frame_of_another_size_is_refused(video: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"), VideoWriter(tmp_path / "a.mp4", 32, 32, 25) as writer:
        writer.write(next(read_stored(video)))
    assert probe_video(video).frames == 5 and not list(tmp_path.iterdir())
