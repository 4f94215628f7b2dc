import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from skyreels_audio.media import InputError
from skyreels_audio.models.syncnet import SyncNet
from skyreels_audio.training import sync
from skyreels_audio.training.manifest import ManifestRow, write_manifest
from skyreels_audio.training.recipe import SyncRecipe
from skyreels_audio.training.sync import Example, SyncTask, disturb, disturb_sound
from skyreels_audio.training.trainer import fit
from tests.training.small_task import options

MODEL = {"embedding": 16, "scale": 0.0625, "side": 64, "normalise": True, "zero_edges": False}


def example(number: int, held_out: bool, manifest: str = "m") -> Example:
    """A bright bar whose height is what the sound says, anew in every frame."""
    rng = np.random.default_rng(number)
    heights = rng.integers(4, 60, 50)
    pictures = rng.integers(0, 40, (50, 64, 64, 3)).astype(np.uint8)
    for frame, height in zip(pictures, heights, strict=True):
        frame[:height, 20:44] = 220
    coefficients = rng.normal(0, 0.3, (13, 200)).astype(np.float32)
    coefficients += np.linspace(0, 2, 13)[:, None].astype(np.float32) * np.repeat((heights - 30) / 8, 4)
    return Example(pictures, coefficients.astype(np.float32), held_out, manifest)


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> SyncRecipe:
    rows = [ManifestRow(f"{n}.mp4", 0.0, 2.0, 25.0, f"{n:064x}") for n in range(8)]
    write_manifest(rows, tmp_path / "m.parquet")
    monkeypatch.setattr(sync, "load_example", lambda row, *given: example(int(row.hash, 16), int(row.hash, 16) > 5))
    optimisation = options(steps=40, batch=4, save_every=40, sample_every=40, ema_decay=0.9, learning_rate=0.005)
    given = {"output": tmp_path / "run", "manifests": [tmp_path / "m.parquet"], "model": MODEL, "windows": 6}
    return SyncRecipe(task="sync", **given, optimisation=optimisation)


def test_it_learns_which_sound_belongs_to_which_lips(recipe):
    """Untrained it finds one of 24 windows; then far more, and the export is the network that was trained."""
    torch.manual_seed(0)
    task = SyncTask(recipe, torch.device("cpu"))
    chance = float(np.log(24))
    first = float(task.loss(0)[0].detach())
    state = fit(task, recipe.optimisation, recipe.output)
    last = np.mean([float(task.loss(1000 + n)[0].detach()) for n in range(4)])
    assert first > 0.9 * chance and last < 0.75 * chance
    with state.averaging() as averaged:
        told = task.evaluate(averaged, 40)
        task.export(averaged, recipe.output / "export")
    assert told["held_out/m/pair_accuracy_window"] > 0.6
    loaded = SyncNet.from_pretrained(recipe.output / "export")
    stored = load_file(recipe.output / "export" / "diffusion_pytorch_model.safetensors")
    assert loaded.config.side == 64 and stored["netfclip.0.weight"].dtype == torch.float16


def test_strangers_are_measured_on_and_never_trained_on(recipe, tmp_path, monkeypatch):
    write_manifest([ManifestRow("s.mp4", 0.0, 2.0, 25.0, f"{20:064x}")], tmp_path / "strangers.parquet")
    monkeypatch.setattr(
        sync, "load_example", lambda row, model, folder, name: example(int(row.hash, 16), row.hash[-1] == "7", name)
    )
    task = SyncTask(recipe.model_copy(update={"strangers": [tmp_path / "strangers.parquet"]}), torch.device("cpu"))
    assert {x.manifest for x in task.train} == {"m"} and len(task.train) == 7
    assert {name.split("/")[1] for name in task.evaluate(task.modules, 0)} == {"m", "strangers"}


def test_without_clips_of_both_kinds_it_says_so(recipe, monkeypatch):
    monkeypatch.setattr(sync, "load_example", lambda *given: None)
    with pytest.raises(InputError, match="at least two clips"):
        SyncTask(recipe, torch.device("cpu"))


def test_disturbances_keep_shape_and_time():
    """A clip is disturbed as a whole: what does not move before does not move after, but for noise."""
    torch.manual_seed(0)
    still = torch.full((2, 3, 6, 64, 64), 120.0)
    still[:, :, :, 20:40, 10:30] = 30
    moved = disturb(still)
    assert moved.shape == still.shape and float(moved.min()) >= 0 and float(moved.max()) <= 255
    assert float((moved.mean(1)[:, 1:] - moved.mean(1)[:, :-1]).mean((2, 3)).abs().max()) < 1
    sound = disturb_sound(torch.zeros(3, 13, 40))
    assert sound.shape == (3, 13, 40) and len(sound.mean(2)[:, 0].unique()) == 3
