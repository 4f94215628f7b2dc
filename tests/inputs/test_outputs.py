"""What is written: whole or not at all, under names of its own, and nothing of anyone else's is touched."""

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from making import pictures

from skyreels_audio.cli import in_sentences
from skyreels_audio.cli.outputs import Outputs
from skyreels_audio.generation.editing import on_disc
from skyreels_audio.generation.report import write_report
from skyreels_audio.media import InputError, VideoWriter, probe_video, read_image, write_image
from skyreels_audio.media.files import replacing, writing
from skyreels_audio.rendering import SHEET_NOTE


@contextmanager
def full_disc(limit: int) -> Iterator[None]:
    """No file may become longer than ``limit`` bytes: writing fails midway, as on a full disc."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(path: Path, count: int = 12, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    with VideoWriter(path, 64, 48, 25, crf=1) as writer:
        for _ in range(count):
            writer.write(rng.integers(0, 255, (48, 64, 3), np.uint8))
    return path


def state(path: Path) -> Path:
    torch.save({"inputs": "", "finished": 1, "latents": torch.zeros(2), "histories": []}, path)
    return path


@pytest.mark.parametrize("limit", [0, 3000, 60000])
def test_a_full_disc_is_told_and_leaves_the_older_file(tmp_path: Path, limit: int) -> None:
    path = write(tmp_path / "out.mp4", 2)
    before = path.read_bytes()
    with full_disc(limit), pytest.raises(InputError, match=r"out\.mp4 cannot be written"):
        write(path, 40)
    with full_disc(limit // 10), pytest.raises(InputError, match=r"out\.png cannot be written"):
        write_image(tmp_path / "out.png", np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["out.mp4"]


def test_an_array_on_a_full_disc_is_told_and_no_signal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    on_disc((4, 8, 8, 3), np.uint8)[:] = 1
    with full_disc(700), pytest.raises(SystemExit, match="2"), in_sentences():
        on_disc((4, 8, 8, 3), np.uint8)
    assert "cannot be written: File too large" in capfd.readouterr().err


def test_two_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    threads = [threading.Thread(target=write, args=(path, 10 + 5 * k, k)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert probe_video(path).frames in (10, 15, 20) and [each.name for each in tmp_path.iterdir()] == ["out.mp4"]


def test_what_a_killed_run_left_is_removed_but_not_what_a_living_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    script = f"""
import os
from pathlib import Path
from skyreels_audio.media.files import replacing
with replacing(Path({str(path)!r})) as partial:
    partial.write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script])
    assert len(list(tmp_path.iterdir())) == 1
    with replacing(path) as living:
        assert list(tmp_path.iterdir()) == [living]
        write(path, 2)
        assert living.exists()
        living.write_bytes(b"whole")
    assert path.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [path]


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".mp4")
    write(path, 2)
    assert probe_video(path).frames == 2
    with pytest.raises(InputError, match="too long a name"):
        Outputs.at(path, [])
    assert Outputs.at(tmp_path / ("x" * 249 + ".mp4"), []).video.name.startswith("x")


def test_only_files_of_this_command_are_replaced(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    assert Outputs.at(video, []) == Outputs.at(video, [], report=True)
    write_image(tmp_path / "a.png", pictures(1, 8, 8)[0], SHEET_NOTE)
    state(tmp_path / "a.state")
    (tmp_path / "a.json").write_text(json.dumps(dict.fromkeys(("version", "inputs", "options", "output"))))
    Outputs.at(video, [], report=True)

    write_image(tmp_path / "a.png", pictures(1, 8, 8)[0])
    with pytest.raises(InputError, match=r"a\.png is in the way: it is no contact sheet of this command"):
        Outputs.at(video, [])
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.json").write_text("[1, 2]")
    Outputs.at(video, [])
    with pytest.raises(InputError, match=r"a\.json is in the way"):
        Outputs.at(video, [], report=True)
    (tmp_path / "a.json").unlink()
    torch.save({"weights": torch.zeros(2)}, tmp_path / "a.state")
    for make in (
        lambda path: None,
        lambda path: (path.unlink(), path.write_bytes(b"notes")),
        lambda path: (path.unlink(), path.mkdir()),
    ):
        make(tmp_path / "a.state")
        with pytest.raises(InputError, match=r"a\.state is in the way: it is no state"):
            Outputs.at(video, [])


def test_links_in_a_circle_and_names_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for path in (tmp_path / "a" / "out.mp4", tmp_path / "nul\0.mp4"):
        with pytest.raises(InputError, match="circle"):
            Outputs.at(path, [])
    with pytest.raises(InputError, match="circle"):
        Outputs.at(tmp_path / "out.mp4", [tmp_path / "a"])


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    with pytest.raises(InputError, match=r"cannot be written: .*notes is no folder\."):
        Outputs.at(tmp_path / "notes" / "a.mp4", [])


def test_odd_names_are_said_and_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Signs that a terminal obeys, and bytes that are no text."""
    odd = os.fsdecode(b"a\n\x1b[2J\xff \xf0\x9f\x98\x80.png")
    with pytest.raises(SystemExit, match="2"), in_sentences():
        read_image(tmp_path / odd)
    assert capfd.readouterr().err.endswith(r"/a\n\x1b[2J\udcff 😀.png does not exist." + "\n")
    path, report = write(tmp_path / f"{odd}.mp4", 2), tmp_path / "a.json"
    write_report(report, {"image": path}, path, {}, {}, {}, {"image": ["24 → 8"]})
    told = json.loads(report.read_text(encoding="utf-8"))
    assert told["output"]["path"] == str(path) and told["inputs"]["image"]["changes"] == ["24 → 8"]


def test_an_error_inside_is_no_fault_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"), writing(tmp_path / "x"):
        os.mkdir(tmp_path / "none" / "x")
