"""``skyreels-audio generate`` from files to a file, with a whole pipeline of random weights."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skyreels_audio import cli
from skyreels_audio.cli import interruption
from skyreels_audio.cli.benchmark import store
from skyreels_audio.cli.progress import Progress
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.media import probe_video, read_audio, read_image, read_video


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, pipeline: SkyReelsAudioPipeline, portrait: np.ndarray, voice: np.ndarray
) -> Path:
    folder = tmp_path_factory.mktemp("command")
    pipeline.save_pretrained(folder / "model")
    Image.fromarray(portrait).save(folder / "face.png")
    with wave.open(str(folder / "voice.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((voice * 32767).astype("<i2").tobytes())
    return folder


def arguments(folder: Path, output: Path, *more: str) -> list[str]:
    paths = {"--image": folder / "face.png", "--audio": folder / "voice.wav", "--model": folder / "model", "-o": output}
    return ["generate", *(str(word) for pair in paths.items() for word in pair), *more]


def generate(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["skyreels-audio", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code


def test_a_video_as_long_as_the_voice_with_its_sound(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "talk.mp4"
    generate(monkeypatch, *arguments(folder, output, "--size", "64x32", "--fps", "20"))
    info = probe_video(output)
    assert (info.width, info.height, info.fps, info.frames) == (64, 32, 20, 24)
    heard, given = read_audio(output), read_audio(folder / "voice.wav")
    assert len(heard) == len(given) and np.corrcoef(heard, given)[0, 1] > 0.99  # AAC
    sheet = read_image(tmp_path / "new" / "talk.png")
    assert sheet.shape == (2 * 32 + 4, 6 * 64 + 5 * 4, 3)
    out, err = capfd.readouterr()
    assert f"{output}: 1.20 s of video in" in out and str(output.with_suffix(".png")) in out
    assert "no face found" in err  # the portrait is noise; it goes on
    assert sorted(path.name for path in output.parent.iterdir()) == ["talk.mp4", "talk.png"]


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [tmp_path / f"{name}.mp4" for name in "abc"]
    for output, seed in zip(outputs, ("7", "7", "8"), strict=True):
        generate(monkeypatch, *arguments(folder, output, "--seed", seed))
    first, again, other = (output.read_bytes() for output in outputs)
    assert first == again != other


def test_a_size_off_the_grid_of_tokens(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["skyreels-audio", *arguments(folder, tmp_path / "a.mp4", "--size", "48x32")])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "the nearest to 48x32 is 64x32" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("phase", "left"), [("encode", []), ("sample", ["talk.state"]), ("write", ["talk.state"])])
def test_an_interruption_leaves_only_what_goes_on(
    phase: str,
    left: list[str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def interrupt(self: Progress, now: str, done: int, total: int) -> None:
        if now == phase and done:
            assert phase != "write" or len(list(tmp_path.iterdir())) > 1  # there is something to leave
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells switch off in the background
    words = arguments(folder, tmp_path / "talk.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(interruption, "PATIENCE", 600)  # the test's own process is not to be ended
        patch.setattr(interruption.os, "_exit", sys.exit)
        patch.setattr(Progress, "__call__", interrupt)
        patch.setattr(sys, "argv", ["skyreels-audio", *words])
        with pytest.raises(SystemExit, match="130"):
            cli.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    goes_on = "; the same command with --resume goes on" if left else ""
    assert capfd.readouterr().err.splitlines()[-1] == f"Interrupted{goes_on}."

    seen = []
    call = Progress.__call__
    monkeypatch.setattr(Progress, "__call__", lambda self, *event: (seen.append(event), call(self, *event))[1])
    generate(monkeypatch, *words, "--resume")
    steps = [done for now, done, _ in seen if now == "sample"]
    assert steps[0] == (1 if phase == "sample" else 2 if phase == "write" else 0)
    generate(monkeypatch, *words[:-1], str(tmp_path / "again.mp4"))
    assert (tmp_path / "talk.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.mp4", "again.png", "talk.mp4", "talk.png"]


def test_a_state_of_another_run_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.state").write_bytes(b"no state")
    words = [*arguments(folder, tmp_path / "talk.mp4"), "--resume"]
    monkeypatch.setattr(sys, "argv", ["skyreels-audio", *words])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "talk.state is in the way: it is no state of this command" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["talk.state"]


def test_words_alone_make_a_person_and_a_report_tells_how(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--prompt", "an old man smiles", "--audio", str(folder / "voice.wav"), "--model", str(folder / "model")]
    generate(monkeypatch, "generate", *words, "--seed", "3", "--report", "-o", str(tmp_path / "talk.mp4"))
    report = json.loads((tmp_path / "talk.json").read_text())
    voice, video = ((path.read_bytes()) for path in (folder / "voice.wav", tmp_path / "talk.mp4"))
    assert set(report["inputs"]) == {"audio"}
    assert report["inputs"]["audio"]["sha256"] == hashlib.sha256(voice).hexdigest()
    assert report["output"]["sha256"] == hashlib.sha256(video).hexdigest()
    assert report["output"]["num_frames"] == probe_video(tmp_path / "talk.mp4").frames
    assert report["options"]["seed"] == 3 and report["options"]["prompt"] == "an old man smiles"
    assert {"load", "encode", "sample", "write"} <= set(report["seconds"])


def test_the_size_of_the_source_keeps_its_shape(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (50, 160)).save(tmp_path / "tall.png")
    words = arguments(folder, tmp_path / "talk.mp4", "--size", "source", "--image", str(tmp_path / "tall.png"))
    generate(monkeypatch, *words)
    info = probe_video(tmp_path / "talk.mp4")
    assert (info.width, info.height) == (32, 64)  # the model makes multiples of 32 pixels


def test_a_fitted_checkpoint_knows_its_caches(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    before = json.loads((model / "model_index.json").read_text())
    pictures = ["--image", str(folder / "face.png"), "--audio", str(folder / "voice.wav"), "--model", str(model)]
    generate(monkeypatch, "benchmark", "--fit-teacache", *pictures, "--steps", "8")
    assert "TeaCache computes" in capfd.readouterr().out
    after = json.loads((model / "model_index.json").read_text())
    learned = after["generation_defaults"]
    assert len(learned.pop("teacache_coefficients")) == 5 and len(learned.pop("magcache_ratios")) == 8
    assert after == before
    assert not list(model.glob("*.partial"))

    def video(*options: str) -> bytes:
        output = tmp_path / "talk.mp4"
        generate(monkeypatch, "generate", *pictures, "--steps", "6", *options, "-o", str(output))
        return output.read_bytes()

    plain = video()
    assert video("--cache", "teacache", "--cache-threshold", "0") == plain
    cached = [video("--cache", "teacache", "--cache-threshold", "1000"), video("--cache", "magcache")]
    assert plain not in cached
    assert video("--cache", "taylorseer", "--memory", "low") not in (plain, *cached)


def test_phases_are_timed(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    paths = {"--image": folder / "face.png", "--audio": folder / "voice.wav", "--model": folder / "model"}
    generate(monkeypatch, "benchmark", *(str(word) for pair in paths.items() for word in pair))
    head, _, figures = capfd.readouterr().out.splitlines()
    assert head == "| encode s | sample s | decode s | real-time factor |"
    *phases, factor = (float(figure) for figure in figures.strip("| ").split(" | "))
    assert abs(sum(phases) / 1.2 - factor) < 0.03  # of a voice of 1.2 s


@pytest.mark.parametrize("how", [[], ["--parallel", "ulysses=2", "--cache", "teacache", "--cache-threshold", "0"]])
def test_torchrun_makes_the_same_video(
    how: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    store(model, teacache_coefficients=[0.0, 0.0, 0.0, 1.0, 0.0])
    outputs = [tmp_path / name / "talk.mp4" for name in ("one", "two")]
    words = [
        [*arguments(folder, output), "--model", str(model), "--report", "--dtype", "float32"] for output in outputs
    ]
    generate(monkeypatch, *words[0])
    generate(monkeypatch, *arguments(folder, tmp_path / "other.mp4", "--seed", "8"))
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "skyreels_audio"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", *torchrun, *words[1], *how], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("s of video in") == 1 and ended.stderr.count("no face found") == 1
    assert sorted(path.name for path in outputs[1].parent.iterdir()) == ["talk.json", "talk.mp4", "talk.png"]
    one, two, other = (np.stack(list(read_video(path))).astype(int) for path in (*outputs, tmp_path / "other.mp4"))
    assert abs(one - two).mean() < 0.25 * abs(one - other).mean()  # a codec makes much of rounding in noise
