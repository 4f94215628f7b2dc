"""Training of the small model: what augmentation must not break, and what each loss is zero at."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skyreels_audio.media import InputError
from skyreels_audio.models.inner_mouth import LIT, face_light
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
    inside = torch.zeros(count, 1, 160, 128)
    inside[:, :, 100:108, 50:78] = 1
    y, x = torch.meshgrid((torch.arange(160) - 104) / 8, (torch.arange(128) - 64) / 16, indexing="ij")
    place = torch.stack([x, y]).expand(count, -1, -1, -1)
    own, seen, gap = torch.zeros_like(inside), torch.ones_like(inside), torch.full((count, 1, 1, 1), 2.0)
    light = face_light(source)
    return Batch(source, warp(source, flow), codes, flow, seen, inside, place, gap, own, own, light)


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
                inside_THW=np.zeros((2, 160, 128), np.float16),
                teeth_THW=np.zeros((2, 160, 128), bool),
                place_32=np.zeros((3, 2), np.float32),
                gap_T=np.zeros(2, np.float32),
            )


def recipe(folder: Path) -> MotionRecipe:
    options = Optimisation(steps=2, batch=2, learning_rate=1e-3)
    speech = {"bank": folder / "speech"}
    given: dict[str, Any] = dict(task="motion", output=folder / "run", pairs=folder / "pairs", speech=speech)
    return MotionRecipe(**given, model=SMALL, optimisation=options)


TEETH = torch.ones(4, 4, 4)


def test_mirrored_faces_have_their_places_mirrored() -> None:
    given = batch(1)
    seen = [augment(given, torch.Generator().manual_seed(seed), TEETH).place_B2HW for seed in range(8)]
    mirrored = given.place_B2HW.flip(-1) * torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1)
    assert any(torch.equal(place, mirrored) for place in seen)
    assert all(torch.equal(place, mirrored) or torch.equal(place, given.place_B2HW) for place in seen)


@pytest.mark.parametrize("seed", range(6))
def test_augmented_pairs_still_fit_their_flow(seed: int) -> None:
    given = augment(batch(8), torch.Generator().manual_seed(seed), TEETH)
    error = (warp(given.source_B3HW, given.flow_B2HW) - given.target_B3HW).abs().mean(1, keepdim=True)
    inner = given.visible_B1HW.clone()
    inner[..., :8], inner[..., -8:], inner[..., :8, :], inner[..., -8:, :] = 0, 0, 0, 0
    median = error[inner > 0].median()  # grain is noise, and a blot has an edge
    assert median < 0.03


def test_what_a_source_does_not_show_of_a_mouth_is_drawn_in_its_new_light() -> None:
    given = batch(8)
    hidden = replace(given, visible_B1HW=1 - given.inside_B1HW)
    seen = augment(hidden, torch.Generator().manual_seed(0), TEETH)
    where = (seen.inside_B1HW > 0) & (seen.place_B2HW[:, 1:].abs() < 0.4)  # white teeth
    for n in range(len(where)):
        shown = (seen.target_B3HW[n][:, where[n, 0]].amax(1) + 1) / 2
        expected = (LIT[1] * seen.light_B7[n, :3]).clamp(0, 1)
        assert torch.allclose(shown, expected, atol=0.08) or not where[n].any()
    assert seen.light_B7[:, :3].std(0).min() > 0.01 and where.any()


def test_losses_of_the_true_motion_are_small_and_of_a_wrong_one_are_not() -> None:
    given = batch()
    true = Motion(
        flow_B2HW=given.flow_B2HW,
        painted_B1HW=torch.full_like(given.visible_B1HW, 1e-4),
        colour_B3HW=torch.zeros_like(given.source_B3HW),
        inside_B1HW=given.inside_B1HW,
        place_B2HW=given.place_B2HW,
        gap_B1HW=given.gap_B111.expand_as(given.inside_B1HW),
        bared_B1HW=given.bared_B1HW,
    )
    losses = motion_losses(true, given, TEETH)
    assert float(losses["flow"]) == float(losses["place"]) == float(losses["gap"]) == 0
    assert float(losses["pixels"]) < 1e-3 and float(losses["hidden"]) < 1e-3 and float(losses["inside"]) < 1e-3
    for name in ("place", "gap", "bared", "inside", "flow"):
        field = next(f.name for f in fields(true) if f.name.startswith(name))
        wrong = motion_losses(replace(true, **{field: getattr(true, field) + 0.5}), given, TEETH)
        assert float(wrong[name]) > 10 * float(losses[name]) + 0.05, name
    moved = motion_losses(replace(true, flow_B2HW=given.flow_B2HW + 2), given, TEETH)
    assert float(moved["pixels"]) > 10 * float(losses["pixels"])


def test_pixels_do_not_move_teeth() -> None:
    given = batch(1)
    place, gap = given.place_B2HW.clone().requires_grad_(), given.gap_B111.expand_as(given.inside_B1HW).clone()
    inside = given.inside_B1HW.clone().requires_grad_()
    painted = torch.full_like(inside, 0.9).detach()
    motion = Motion(given.flow_B2HW, painted, given.source_B3HW, inside, place, gap, given.bared_B1HW)
    loss = motion_losses(motion, given, torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0)))["pixels"]
    loss.backward()
    assert place.grad is None and inside.grad is not None and inside.grad.abs().sum() > 0


def test_at_the_edge_of_a_lip_only_what_is_no_lip_is_unseen() -> None:
    given = batch(1)
    share, visible = torch.tensor([0.0, 0.25, 0.75, 1.0]), torch.tensor([0.0, 1.0])
    inside, seen = (x[None, None] for x in torch.meshgrid(share, visible, indexing="ij"))
    edge = replace(given, inside_B1HW=inside, visible_B1HW=seen)
    # Skin that was hidden, or seen; a lip's edge beside it; the mouth's; and its inside, unless the source shows that.
    assert edge.unseen_B1HW[0, 0].tolist() == [[1, 0], [1, 0.25], [0.75, 0], [1, 0]]


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
