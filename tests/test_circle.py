"""The circle closes: a pool of video → curate → manifest → shards → stage 1 of the paper → a video → its evaluation.

Every step is the command that a person gives, on real classes; only the model is of tiny width (its mouth is noise).
"""

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from skyreels_audio import cli, media
from skyreels_audio.models.convert import convert_backbone
from skyreels_audio.training.manifest import LABEL_FPS, read_manifest
from tests.models.tiny_checkpoints import save_diffusers, save_whisper

ROOT = Path(__file__).parents[1]
LATE = 5  # frames by which the sound of the pool's clip is late
SECONDS = 2.8
LIMITS = "probe", "split", "content", "portrait"  # the others are for recordings; here a model moves the person
PROTOCOL = {"name": "circle", "task": "edit", "width": 128, "height": 128, "frames": 40, "crop": "none", "resamples": 0}
RECIPE = {
    "optimisation.steps": 2,
    "optimisation.batch": 1,
    "optimisation.warmup_steps": 0,
    "optimisation.save_every": 2,
    "held_out_batches": 0,
}


def run(*words: object) -> str:
    result = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def write_sound(path: Path, sound_n: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, media.SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((sound_n * 32767).astype(np.int16).tobytes())
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A drawn person who speaks, with the sound ``LATE`` frames late; the same without sound; no video at all."""
    count = round(SECONDS * media.SAMPLE_RATE)
    voice = write_sound(tmp_path / "voice.wav", media.read_audio(ROOT / "examples" / "voice.wav")[:count])
    run("generate", "--audio", voice, "--size", 256, "--output", tmp_path / "talk.mp4")
    frames = list(media.read_video(tmp_path / "talk.mp4", LABEL_FPS))
    silence_n = np.zeros(LATE * media.SAMPLE_RATE // LABEL_FPS, np.float32)
    late = write_sound(tmp_path / "late.wav", np.concatenate([silence_n, media.read_audio(voice)])[:count])
    folder = tmp_path / "pool"
    folder.mkdir()
    for name, sound in (("late.mp4", late), ("mute.mp4", None)):
        with media.VideoWriter(folder / name, 256, 256, LABEL_FPS, audio=sound) as video:
            for frame in frames:
                video.write(frame)
    (folder / "broken.mp4").write_bytes(b"")
    return folder


def test_the_circle_closes(pool: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "curate.yaml").read_text())
    recipe["limits"] = {stage: recipe["limits"][stage] for stage in LIMITS}
    (tmp_path / "curate.yaml").write_text(yaml.safe_dump(recipe))
    said = run("curate", tmp_path / "curate.yaml", "--input", pool, "--out", tmp_path / "curated")
    assert "3 sources (0 finished before, 3 scored now)" in said and "kept 1" in said
    (row,) = read_manifest(tmp_path / "curated" / "manifest.parquet")
    assert Path(row.path).name == "late.mp4" and row.landmarks_F682 is not None and row.caption
    assert row.sync_offset is not None and abs(row.sync_offset - LATE) <= 1

    save_diffusers("SkyReels-V2-I2V-1.3B-540P", tmp_path / "backbone")
    convert_backbone(tmp_path / "backbone", tmp_path / "start", save_whisper(tmp_path / "whisper"))
    model = ("--model", tmp_path / "start", "--out", tmp_path / "shards", "--size", "64x64", "--latents", 3)
    run("precompute", tmp_path / "curated" / "manifest.parquet", *model, "--held-out", 0)

    folders = {"output": str(tmp_path / "run"), "model": str(tmp_path / "start"), "data": f"[{tmp_path / 'shards'}]"}
    changes = [word for name, value in (RECIPE | folders).items() for word in ("--set", f"{name}={value}")]
    said = run("train", ROOT / "recipes" / "paper-stage1.yaml", *changes, "--device", "cpu")
    (told,) = [line for line in said.splitlines() if line.endswith(": trained weights")]
    weights = Path(told.removesuffix(": trained weights"))

    (tmp_path / "made").mkdir()
    given = ("--video", pool / "late.mp4", "--audio", tmp_path / "voice.wav", "--size", 64, "--steps", 1)
    run("generate", "--model", weights, *given, "--output", tmp_path / "made" / "late.mp4")

    (tmp_path / "protocol.yaml").write_text(json.dumps(PROTOCOL))
    made = ("--generated", tmp_path / "made", "--reference", pool, "--protocol", tmp_path / "protocol.yaml")
    run("evaluate", *made, "--out", tmp_path / "evaluation")
    found = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert found["clips"][0]["name"] == "late" and "error" not in found["clips"][0]
    assert np.isfinite(found["systems"]["generated"]["psnr"]["value"])
