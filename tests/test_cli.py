"""The command's door: what a person gives wrongly ends in one sentence and exit code 2, before any model is loaded."""

import json
import re
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skyreels_audio import cli
from skyreels_audio.bundled import bundled
from skyreels_audio.cli.door import read_settings
from skyreels_audio.cli.options import parse_size
from skyreels_audio.media import VideoWriter


def write_voice(path: Path, seconds: float = 1, loudness: float = 0.3) -> Path:
    samples_n = loudness * 32767 * np.sin(np.arange(round(16000 * seconds)) / 9)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples_n.astype("<i2").tobytes())
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Options of a sound command; tests spoil one of them. The checkpoint has no weights."""
    Image.new("RGB", (64, 80), (200, 150, 120)).save(tmp_path / "face.png")
    (tmp_path / "model" / "transformer").mkdir(parents=True)
    config = {"num_attention_heads": 4, "attention_head_dim": 64, "in_channels": 36, "out_channels": 16}
    config = config | {"patch_size": [1, 2, 2]}
    (tmp_path / "model" / "transformer" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "vae").mkdir()
    (tmp_path / "model" / "vae" / "config.json").write_text(json.dumps({"scale_factor_spatial": 16}))
    (tmp_path / "model" / "model_index.json").write_text(json.dumps({"generation_defaults": {"fps": 20}}))
    return {
        "--image": tmp_path / "face.png",
        "--audio": write_voice(tmp_path / "voice.wav"),
        "--output": tmp_path / "out" / "talk.mp4",
        "--model": tmp_path / "model",
    }


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The command's exit code; the words are left to ``capsys``."""
    monkeypatch.setattr(sys, "argv", ["skyreels-audio", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    code = stop.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def silence(folder: Path) -> Path:
    return write_voice(folder / "silence.wav", loudness=0)


def named(name: str, data: bytes = b""):
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


SPOILED = {
    "missing picture": ("--image", lambda folder: folder / "none.png", "none.png does not exist"),
    "text as picture": ("--image", named("text.png", b"no picture at all"), "text.png is not a picture"),
    "empty picture": ("--image", named("empty.jpg"), "empty.jpg is empty"),
    "folder as picture": ("--image", lambda folder: folder, "is a folder"),
    "sound as picture": ("--image", silence, "is not a picture"),
    "missing voice": ("--audio", lambda folder: folder / "none.wav", "none.wav does not exist"),
    "text as voice": ("--audio", named("text.mp3", b"not a sound at all"), "text.mp3 holds no sound"),
    "empty voice": ("--audio", named("empty.wav"), "empty.wav is empty"),
    "silent voice": ("--audio", silence, "silence.wav is silent"),
    "voice of 0 s": ("--audio", lambda folder: write_voice(folder / "zero.wav", 0), "zero.wav holds no sound"),
    "picture as voice": ("--audio", lambda folder: folder / "face.png", "face.png has no sound"),
    "folder as output": ("--output", lambda folder: folder, "is a folder"),
    "other format": ("--output", lambda folder: folder / "out.avi", r"does not end in \.mp4"),
    "output in a file": ("--output", lambda folder: folder / "voice.wav" / "out.mp4", "cannot be written"),
    "output over input": ("--output", lambda folder: folder / "face.mp4", "face.png is an input"),
    "no checkpoint": ("--model", lambda folder: folder / "none", "none is not a checkpoint"),
    "half a latent": ("--size", lambda _: "100x130", "nearest to 100x130 is 96x128"),
    "half a token": ("--size", lambda _: "257x300", "multiples of 32 pixels; the nearest to 257x300 is 256x288"),
    "no size": ("--size", lambda _: "big", "WIDTHxHEIGHT"),
    "size of three": ("--size", lambda _: "64x64x64", "WIDTHxHEIGHT"),
    "size of a wall": ("--size", lambda _: "4098x4098", "a side has at most 4096 pixels"),
    "bytes as words": ("--prompt", lambda _: "\udcff", "--prompt is not text"),
    "no frames": ("--fps", lambda _: "0", "--fps must be from 1 to 120"),
    "no number": ("--fps", lambda _: "nan", "--fps must be from 1 to 120"),
    "guidance": ("--audio-guidance", lambda _: "strong", "not a guidance scale"),
    "face of a picture": ("--face", lambda _: "left", "--face is about the video"),
    "steps of a picture": ("--hybrid-steps", lambda _: "3", "--hybrid-steps is about the video"),
    "picture and video": ("--video", lambda folder: folder / "face.png", "--image cannot be combined with --video"),
    "key alone": ("--sign-key", lambda folder: folder / "voice.wav", "given together"),
    "threshold of nothing": ("--cache-threshold", lambda _: "0.2", "--cache-threshold is TeaCache's"),
    "ratios": ("--cache", lambda _: "magcache", "benchmark --fit-teacache"),
    "coefficients": ("--cache", lambda _: "teacache", "benchmark --fit-teacache"),
    "parallel alone": ("--parallel", lambda _: "ring=2", "for 2 processes, but 1 were started"),
    "parallel words": ("--parallel", lambda _: "pipes=2", "write numbers for some of ulysses, ring, branch, window"),
    "device": ("--device", lambda _: "abacus", "--device abacus cannot be used"),
}


def test_a_checkpoint_with_a_truncated_file_is_named(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs["--model"] = tmp_path / "truncated"
    shutil.copytree(bundled("weights/tiny"), inputs["--model"])
    weights = inputs["--model"] / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run(monkeypatch, "generate", *(word for pair in inputs.items() for word in pair)) == 2
    assert re.search(r"Error: .*truncated cannot be loaded", capfd.readouterr().err.replace("\n", ""))
    assert not inputs["--output"].exists()


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_given_wrongly_is_told_in_one_sentence(
    case: str,
    inputs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    option, spoil, words = SPOILED[case]
    inputs[option] = spoil(tmp_path)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    code = run(monkeypatch, "generate", *(word for pair in inputs.items() for word in pair))
    out, err = capfd.readouterr()
    assert code == 2 and out == ""
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "Traceback" not in err
    assert re.search(words, errors[0])
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_edit_by_motion_keeps_its_size(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs["--model"], inputs["--video"] = bundled("weights/tiny"), tmp_path / "video.mp4"
    del inputs["--image"]
    with VideoWriter(inputs["--video"], 64, 64, 25) as writer:
        for _ in range(3):
            writer.write(np.full((64, 64, 3), 99, np.uint8))
    assert run(monkeypatch, "generate", *(word for pair in inputs.items() for word in pair), "--size", "128") == 2
    assert "--size does not go with --video" in " ".join(capfd.readouterr().err.split())


TOGETHER = {
    "a cache is not stored": (["--cache", "taylorseer", "--resume"], 1, "--resume cannot be combined with --cache"),
    "hooks do not compile": (["--cache", "taylorseer", "--compile"], 1, "do not compile"),
    "a branch that goes": (["--cache", "taylorseer", "--text-guidance", "linear:1→3"], 1, "come and go"),
    "one device for two": (["--device", "cuda:1"], 2, "cannot be shared by processes"),
    "too few numbers": (["--parallel", "ulysses=2"], 3, "for 2 processes, but 3 were started"),
    "heads": (["--parallel", "ulysses=3"], 3, "4 attention heads"),
}


@pytest.mark.parametrize("case", TOGETHER)
def test_what_does_not_go_together_is_told_by_the_first_process_alone(
    case: str, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options, processes, words = TOGETHER[case]
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    for rank in range(processes):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert run(monkeypatch, "generate", *(word for pair in inputs.items() for word in pair), *options) == 2
        err = capfd.readouterr().err
        assert re.fullmatch(rf"Error: .*{words}.*\n", err) if rank == 0 else err == ""


@pytest.mark.parametrize("arguments", [["generate", "--nonsense"], ["generate", "--steps", "0"], ["dance"], ["train"]])
def test_wrong_usage_is_told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "Error: " in capfd.readouterr().err


def test_sizes_are_read() -> None:
    assert parse_size("256") == (256, 256)
    assert parse_size("480x832") == parse_size("480×832") == parse_size("480X832") == (480, 832)


def test_what_is_given_goes_before_what_the_checkpoint_says(inputs: dict[str, Path]) -> None:
    model = inputs["--model"]
    assert read_settings(model, fps=None).fps == 20
    assert read_settings(model, fps=30.0).fps == 30
    assert read_settings(model, audio_guidance_scale="cosine:1->4").audio_guidance_scale == "cosine:1->4"


def test_help_names_every_option(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "generate", "--help") == 0
    text = capfd.readouterr().out
    options = ("image", "audio", "prompt", "output", "model", "steps", "audio-guidance", "text-guidance", "seed")
    options += ("size", "fps", "device", "dtype", "video", "face", "extend", "landmarks", "fusion", "hybrid-steps")
    options += ("colour-strength", "resume", "report", "sign-key", "sign-cert")
    options += ("cache", "cache-threshold", "parallel", "compile")
    assert all(f"--{option}" in text for option in options)
