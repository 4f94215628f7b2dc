"""Frames of any size, pose, pixel aspect and format: as FFmpeg shows them, and kept in what is written."""

from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import ffmpeg, needs_ffmpeg, pictures, write_clip

from skyreels_audio.media import InputError, StoredFrame, VideoWriter, probe_video, read_stored, read_video

MATRICES = [(a, 0, 0, d) for a, d in product((1, -1), repeat=2)] + [(0, b, c, 0) for b, c in product((1, -1), repeat=2)]
quick = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rewritten(path: Path, frames: list[StoredFrame], fps: float, aspect: Fraction) -> Path:
    height, width = frames[0].size
    with VideoWriter(path, width, height, fps, crf=4, colour=frames[0].colour, aspect=aspect) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@quick
@given(
    height=st.integers(16, 71),
    width=st.integers(16, 71),
    matrix=st.sampled_from(MATRICES),
    aspect=st.sampled_from([Fraction(1), Fraction(4, 3), Fraction(8, 9), Fraction(2)]),
    pixel_format=st.sampled_from(["yuv444p", "yuv422p10le", "yuvj444p"]),
)
def test_any_size_pose_and_aspect_survive(tmp_path_factory, height, width, matrix, aspect, pixel_format) -> None:
    folder = tmp_path_factory.mktemp("geometry")
    if pixel_format.startswith("yuv422"):  # holds even widths alone
        width += width % 2
    path = write_clip(
        folder / "in.mp4", pictures(3, height, width), "libx264", pixel_format, pose=matrix, aspect=aspect
    )
    a, b, c, d = matrix
    source = list(read_stored(path))
    info = probe_video(path)
    upright = (width, height) if b else (height, width)
    assert source[0].size == tuple(side // 2 * 2 for side in upright) and (info.height, info.width) == upright
    assert info.aspect == (1 / aspect if b else aspect)
    again = rewritten(folder / "out.mp4", source, info.fps, info.aspect)
    assert probe_video(again).aspect == info.aspect and not probe_video(again).pose
    # Where each corner's colour went: x grows to the right in red, y downwards in green, before the matrix.
    shown = np.stack([frame.rgb() for frame in read_stored(again)]).astype(float)
    reds, greens = (np.gradient(shown[0, ..., channel].mean(axis)) for channel, axis in ((0, 0), (1, 0)))
    reds_down, greens_down = (np.gradient(shown[0, ..., channel].mean(1)) for channel in (0, 1))
    if b:
        assert np.sign(np.median(reds_down)) == np.sign(b) and np.sign(np.median(greens)) == np.sign(c)
    else:
        assert np.sign(np.median(reds)) == np.sign(a) and np.sign(np.median(greens_down)) == np.sign(d)
    assert np.abs(shown - np.stack([frame.rgb() for frame in source])).mean() < 2


@needs_ffmpeg
@pytest.mark.parametrize("matrix", MATRICES)
def test_a_pose_is_what_ffmpeg_shows(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = write_clip(tmp_path / "in.mp4", pictures(2, 34, 50), pose=matrix)
    ours = np.stack(list(read_video(path))).astype(int)
    raw = ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    theirs = np.frombuffer(raw, np.uint8).reshape(ours.shape).astype(int)
    assert np.abs(ours - theirs).mean() < 2


@needs_ffmpeg
@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix"),
    [
        ("ffv1", "gray", ".mkv"),
        ("ffv1", "bgr0", ".mkv"),
        ("ffv1", "yuva420p", ".mkv"),
        ("ffv1", "yuv420p10le", ".mkv"),
        ("ffv1", "yuv411p", ".avi"),
        ("ffv1", "gbrp16le", ".mkv"),
        ("png", "rgba", ".mov"),
        ("gif", "pal8", ".gif"),
        ("mjpeg", "yuvj420p", ".avi"),
        ("libx264rgb", "rgb24", ".mp4"),
        ("libvpx-vp9", "yuva420p", ".webm"),
        ("libaom-av1", "yuv420p10le", ".mkv"),
        ("prores_ks", "yuva444p10le", ".mov"),
        ("libx265", "yuv420p12le", ".mp4"),
    ],
)
def test_any_stored_format_looks_as_in_ffmpeg(tmp_path: Path, codec: str, pixel_format: str, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    extra = {"libaom-av1": ["-cpu-used", "8"], "libx265": ["-x265-params", "log-level=none"]}.get(codec, [])
    transparent = pixel_format.startswith("yuva") or pixel_format == "rgba"
    pattern = "testsrc2=size=66x50:rate=10:duration=0.3"
    pattern += ",format=rgba,colorchannelmixer=aa=0.5" if transparent else ""
    ffmpeg("-f", "lavfi", "-i", pattern, "-c:v", codec, "-pix_fmt", pixel_format, *extra, path)
    raw = ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    theirs = np.frombuffer(raw, np.uint8).reshape(-1, 50, 66, 3).astype(int)
    ours = np.stack([frame.rgb() for frame in read_stored(path)]).astype(int)
    assert len(ours) == len(theirs)
    # Halved colour blurs the pattern's edges; the flat areas must agree.
    assert np.median(np.abs(ours - theirs)) <= 3 and np.abs(ours - theirs).mean() < 16
    changes = " · ".join(probe_video(path).changes)
    assert ("bits per sample become 8" in changes) == pixel_format.startswith("yuv") * pixel_format.endswith("le")
    assert ("transparency" in changes) == transparent


@needs_ffmpeg
@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_is_said_and_stays(tmp_path: Path, transfer: str, name: str) -> None:
    path = tmp_path / "hdr.mp4"
    tags = ["-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc", "-color_range", "tv"]
    source = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=0.2"]
    parameters = f"log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    ffmpeg(*source, "-pix_fmt", "yuv420p10le", "-c:v", "libx265", *tags, "-x265-params", parameters, path)
    changes = " · ".join(probe_video(path).changes)
    assert f"HDR ({name})" in changes and "10 bits" in changes
    frames = list(read_stored(path))
    again = rewritten(tmp_path / "out.mp4", frames, 25, Fraction(1))
    assert probe_video(again).transfer == probe_video(path).transfer
    assert next(read_stored(again)).colour == frames[0].colour


@needs_ffmpeg
def test_tracks_that_are_not_carried_are_said(tmp_path: Path) -> None:
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:00,400\nHello\n")
    (tmp_path / "chapters.txt").write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=200\ntitle=one\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=200\nEND=400\n"
    )
    inputs = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=0.4", "-f", "lavfi", "-i", "sine=duration=0.4"]
    inputs += ["-i", tmp_path / "words.srt", "-i", tmp_path / "chapters.txt"]
    maps = ["-map", "0:v", "-map", "1:a", "-map", "1:a", "-map", "2:s", "-map_chapters", "3"]
    ffmpeg(*inputs, *maps, "-c:s", "srt", tmp_path / "many.mkv")
    assert "not carried: 2 chapters, 1 sound tracks, 1 subtitle tracks" in probe_video(tmp_path / "many.mkv").changes


@needs_ffmpeg
@pytest.mark.parametrize("flags", ["+ilme+ildct", "0"])
def test_interlaced_frames_are_said(tmp_path: Path, flags: str) -> None:
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=64x64:duration=0.4",
        "-flags",
        flags,
        "-c:v",
        "mpeg2video",
        tmp_path / "a.mpg",
    )
    assert any("interlaced" in change for change in probe_video(tmp_path / "a.mpg").changes) == (flags != "0")


def test_uneven_times_become_an_even_rate(tmp_path: Path) -> None:
    times = [0, 40, 80, 200, 240, 280, 440, 480]  # a phone that leaves out frames
    path = write_clip(tmp_path / "vfr.mkv", pictures(8, 32, 32), times=times)
    info = probe_video(path)
    assert info.variable and any("uneven" in change for change in info.changes)
    brightness = [float(frame.mean()) for frame in read_video(path)]
    shown = [int(np.argmin(np.abs(np.array(brightness) - frame.mean()))) for frame in read_video(path, 25)]
    assert shown[:12] == [0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 5, 6]


def test_a_size_that_changes_midway_is_scaled_to_the_first(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "a.ts", pictures(3, 32, 48), pixel_format="yuv420p")
    second = write_clip(tmp_path / "b.ts", pictures(3, 64, 96), pixel_format="yuv420p")
    (tmp_path / "both.ts").write_bytes(first.read_bytes() + second.read_bytes())
    assert {frame.size for frame in read_stored(tmp_path / "both.ts")} == {(32, 48)}


def test_a_video_that_begins_between_key_frames_is_read_from_the_next(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ts", pictures(30, 32, 48), pixel_format="yuv420p", options={"g": "10", "bf": "0"})
    data, packet = path.read_bytes(), 188
    (tmp_path / "cut.ts").write_bytes(data[: 2 * packet] + data[len(data) // 2 // packet * packet :])
    shown = list(read_stored(tmp_path / "cut.ts"))
    assert 5 <= len(shown) < 25 and probe_video(tmp_path / "cut.ts").fps == 25


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 64)])
def test_a_video_without_room_for_a_pixel_of_colour_is_refused(tmp_path: Path, height: int, width: int) -> None:
    path = write_clip(tmp_path / "a.mkv", [np.zeros((height, width, 3), np.uint8)] * 5, "ffv1", "bgr0")
    with pytest.raises(InputError, match=rf"a\.mkv has frames of {width}×{height}; at least 2×2"):
        probe_video(path)
