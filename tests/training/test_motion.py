"""Training of the small model: what augmentation must not break, and what each loss is zero at."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skyreels_audio.media import InputError
from skyreels_audio.models.motion_autoencoder import CHANNELS, FACE_CHANNELS, REST, Motion, warp
from skyreels_audio.synthetic.codes import speech_code
from skyreels_audio.training.motion.augment import Batch, augment
from skyreels_audio.training.motion.decoder import MotionTask, PairFolder, motion_losses
from skyreels_audio.training.motion.recipe import MotionRecipe
from skyreels_audio.training.motion.speech import DEFAULT, Performance, Performances, sample_manner
from skyreels_audio.training.options import Optimisation

SMALL = {"widths": (8, 8, 8, 16), "code_width": 16}


def batch(count: int = 4) -> Batch:
    """Smooth pictures shifted by whole pixels: the flow is exact but at the border."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 20, 16, generator=generator) * 1.6 - 0.8
    source = torch.nn.functional.interpolate(coarse, (160, 128), mode="bicubic").clamp(-1, 1)
    flow = torch.zeros(count, 2, 160, 128)
    flow[:, 0], flow[:, 1] = 4, -3
    codes = torch.rand(count, len(FACE_CHANNELS), generator=generator)
    teeth = torch.zeros(count, 1, 160, 128)
    teeth[:, :, 100:108, 50:78] = 1
    y, x = torch.meshgrid((torch.arange(160) - 104) / 8, (torch.arange(128) - 64) / 16, indexing="ij")
    place = torch.stack([x, y]).expand(count, -1, -1, -1)
    own = torch.zeros_like(teeth)
    return Batch(source, warp(source, flow), codes, flow, torch.ones(count, 1, 160, 128), teeth, place, own, own)


def write_pairs(folder: Path, clips: int = 3) -> None:
    """Clips of two frames and two pairs each."""
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for n in range(clips):
            rng = np.random.default_rng(n)
            frames = rng.integers(0, 256, (2, 160, 128, 3), np.uint8)
            np.savez(
                folder / split / f"{n:06d}.npz",
                frames_THWC=frames,
                sources_P=np.array([0, 1]),
                targets_P=np.array([1, 0]),
                codes_PN=rng.random((2, len(FACE_CHANNELS)), np.float32),
                poses_TN=np.zeros((2, len(FACE_CHANNELS)), np.float32),
                flow_PHW2=np.full((2, 160, 128, 2), 64, np.int16),
                visible_PHW=np.ones((2, 160, 128), bool),
                teeth_THW=np.zeros((2, 160, 128), bool),
                laid=np.array(True),
                teeth_place_32=np.zeros((3, 2), np.float32),
            )


def recipe(folder: Path) -> MotionRecipe:
    options = Optimisation(steps=2, batch=2, learning_rate=1e-3)
    speech = {"bank": folder / "speech"}
    given: dict[str, Any] = dict(task="motion", output=folder / "run", pairs=folder / "pairs", speech=speech)
    return MotionRecipe(**given, model=SMALL, optimisation=options)


def test_mirrored_teeth_keep_their_places_in_the_mirrored_relief() -> None:
    given = batch(1)
    seen = [augment(given, torch.Generator().manual_seed(seed)).place_B2HW for seed in range(8)]
    mirrored = given.place_B2HW.flip(-1) * torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1)
    assert any(torch.equal(place, mirrored) for place in seen)
    assert all(torch.equal(place, mirrored) or torch.equal(place, given.place_B2HW) for place in seen)


@pytest.mark.parametrize("seed", range(6))
def test_augmented_pairs_still_fit_their_flow(seed: int) -> None:
    given = augment(batch(8), torch.Generator().manual_seed(seed))
    error = (warp(given.source_B3HW, given.flow_B2HW) - given.target_B3HW).abs().mean(1, keepdim=True)
    inner = given.visible_B1HW.clone()
    inner[..., :8], inner[..., -8:], inner[..., :8, :], inner[..., -8:, :] = 0, 0, 0, 0
    median = error[inner > 0].median()  # grain is noise, and a blot has an edge
    assert median < 0.03


def test_losses_of_the_true_motion_are_small_and_of_a_wrong_flow_are_not() -> None:
    given = batch()
    painted = torch.full_like(given.visible_B1HW, 1e-4)
    colour = torch.zeros_like(given.source_B3HW)
    relief, teeth, own = torch.ones(3, 4, 4), (given.teeth_B1HW, given.place_B2HW), (given.own_B1HW, given.bared_B1HW)
    true = motion_losses(Motion(given.flow_B2HW, painted, colour, *teeth, *own), given, relief)
    wrong = motion_losses(Motion(given.flow_B2HW + 2, painted, colour, *teeth, *own), given, relief)
    assert float(true["flow"]) == 0 and float(true["pixels"]) < 1e-3 and float(true["hidden"]) < 1e-3
    assert float(true["place"]) == 0 and float(true["teeth"]) < 1e-3
    loose = motion_losses(Motion(given.flow_B2HW, painted, colour, *teeth, own[0], own[1] + 0.5), given, relief)
    assert float(loose["bared"]) > 0.1
    elsewhere = motion_losses(Motion(given.flow_B2HW, painted, colour, teeth[0], teeth[1] + 0.5, *own), given, relief)
    assert float(elsewhere["place"]) > 0.1
    assert float(wrong["flow"]) > 0.5 and float(wrong["pixels"]) > 10 * float(true["pixels"])


def test_what_comes_from_outside_of_a_band_is_hidden() -> None:
    given = batch(1)
    given.flow_B2HW[:, 1] = -20
    band = given.rows(slice(48, 160))
    assert not band.visible_B1HW[..., :17, :].any() and band.visible_B1HW[..., 20:, :].all()


def test_neither_side_of_the_discriminator_moves_the_other(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs")
    task = MotionTask(recipe(tmp_path), torch.device("cpu"))
    given = task.clips.draw(2, torch.Generator().manual_seed(0))
    vae = task.modules["vae"]
    motion = vae.move(given.codes_BN, vae.read_source(given.source_B3HW))  # pyright: ignore[reportCallIssue]
    losses = task.adversarial_losses(motion, given, 0)

    def touched(name: str, loss: torch.Tensor) -> bool:
        parameters = list(task.modules[name].parameters())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return any(g is not None and bool(g.abs().sum() > 0) for g in gradients)

    assert touched("discriminator", losses["discriminator"]) and not touched("vae", losses["discriminator"])
    for name in ("adversarial", "features"):
        assert touched("vae", losses[name]) and not touched("discriminator", losses[name])


def test_a_step_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs")
    values = []
    for _ in range(2):
        torch.manual_seed(0)
        values.append(MotionTask(recipe(tmp_path), torch.device("cpu")).loss(5)[1])
    assert values[0] == values[1]


def test_no_clips_are_a_sentence(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "pairs" / split).mkdir(parents=True)
    with pytest.raises(InputError, match="holds no clips: make them with"):
        MotionTask(recipe(tmp_path), torch.device("cpu"))


def test_half_written_clips_are_not_read(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", clips=1)
    (tmp_path / "pairs" / "train" / "000009.77.partial").write_bytes(b"half")
    assert len(PairFolder(tmp_path / "pairs" / "train").paths) == 1


def test_a_window_begins_at_rest_and_no_words_mean_the_default_manner() -> None:
    rng = np.random.default_rng(0)
    curves = np.zeros((1200, 9), np.float32)
    curves[:, 0] = 0.4 - 0.4 * np.cos(np.arange(1200) / 8)
    manners = (DEFAULT, sample_manner(rng))
    codes = tuple(torch.from_numpy(speech_code(curves, curves[:, 0], m, rng)) for m in manners)
    item = Performance(torch.randn(600, 8), codes, manners)
    performances = object.__new__(Performances)
    performances.recipe = type("Recipe", (), {"drop_text": 0.5, "drop_audio": 0.0})()  # pyright: ignore
    seen = set()
    for _ in range(24):
        window, audio, words = performances.cut(item, 40, 97, rng)
        assert torch.equal(window[0], torch.tensor(REST)) and window.shape == (97, len(CHANNELS))
        assert audio.shape == (2 * 97 + 32, 8)
        which = next(k for k, c in enumerate(codes) if torch.equal(c[41:137], window[1:]))
        assert words != "" or which == 0
        seen.add(words == "")
    assert seen == {True, False}
