"""The loss of the sync expert: what it sees, whom it favours, and that its gradient reaches what makes the latents."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from skyreels_audio.evaluation.held_out import portrait, speaking_motion, true_video, voice
from skyreels_audio.evaluation.subjects import drawn
from skyreels_audio.faces import face_box
from skyreels_audio.media import InputError
from skyreels_audio.models.syncnet import face_crops, face_squares, mfcc
from skyreels_audio.synthetic.render import Renderer
from skyreels_audio.training.lip_sync import LipSync

CELL, LATENTS = 8, 18


class Pixels(torch.nn.Module):
    """An autoencoder without loss: a latent is the pixels of its frames. The first frame fills a latent."""

    def __init__(self) -> None:
        super().__init__()
        self.config: Any = type("Config", (), {})()
        self.config.scale_factor_spatial, self.config.z_dim = CELL, 4 * 3 * CELL**2
        self.config.latents_mean = self.config.latents_std = None

    def encode(self, frames_FHWC: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.concatenate([frames_FHWC[:1].repeat(3, 0), frames_FHWC])).float() / 127.5 - 1
        cells = pixels.unflatten(2, (-1, CELL)).unflatten(1, (-1, CELL)).unflatten(0, (-1, 4))  # T 4 h y w x 3
        return cells.permute(1, 3, 5, 6, 0, 2, 4).flatten(0, 3)[None]

    def decode(self, latents_BCTHW: torch.Tensor) -> Any:
        cells = latents_BCTHW.unflatten(1, (4, CELL, CELL, 3))  # B 4 y x 3 T h w
        video = cells.permute(0, 4, 5, 1, 6, 2, 7, 3).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return type("Output", (), {"sample": video[:, :, 3:]})


@pytest.fixture(scope="module")
def sync(tmp_path_factory) -> LipSync:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    AutoencoderKLWan(**sizes, latents_mean=[0.0] * 4, latents_std=[1.0] * 4).save_pretrained(folder / "vae")
    return LipSync(folder, 9, torch.device("cpu"))


@pytest.fixture(scope="module")
def spoken() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Somebody drawn who speaks: frames, boxes of the face, sound."""
    renderer = Renderer(192)
    subject, _ = drawn("test", 1, "realistic")
    said = voice(1, 3.0)
    _, landmarks = portrait(renderer, subject)
    shown, _ = true_video(renderer, subject, speaking_motion(said, 1))
    frames = shown.frames[: 4 * (LATENTS - 1) + 1]
    return frames, np.tile(face_box(landmarks), (len(frames), 1)), said.waveform


def squares_of(boxes_F4: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(face_squares(boxes_F4)).float()


def test_the_expert_sees_what_it_sees_of_files(sync, spoken, monkeypatch):
    frames, boxes, _ = spoken
    monkeypatch.setattr(sync, "vae", Pixels())
    seen = sync.mouths(Pixels().encode(frames), squares_of(boxes)[1:])
    told = sync.expert.crop(torch.from_numpy(face_crops(frames, boxes))[None])[0, :, 1:]
    assert seen.shape == told.shape and float((seen - told).abs().mean()) < 3
    of_both = (sync.expert.embed_pictures(each[None])[0] for each in (seen, told))
    assert float(torch.cosine_similarity(*of_both, dim=-1).mean()) > 0.95


def test_lips_that_say_the_sound_lose_less(sync, spoken, monkeypatch):
    frames, boxes, waveform = spoken
    monkeypatch.setattr(sync, "vae", Pixels())
    latents, coefficients = Pixels().encode(frames), torch.from_numpy(mfcc(waveform))
    stretches = torch.linspace(0, 0.99, 4)
    given = latents.expand(4, *latents.shape[1:]), squares_of(boxes).expand(4, -1, -1)

    def loss(late: int) -> float:
        return float(sync(*given, coefficients.roll(4 * late, 1).expand(4, -1, -1), stretches).mean())

    own = loss(0)
    assert all(own < loss(late) - 0.1 for late in (-12, -8, 8, 12))


def test_a_step_along_the_gradient_brings_lips_and_sound_together(sync, spoken, monkeypatch):
    """Through a real autoencoder; and only latents around the mouth, in the stretch, are told anything."""
    monkeypatch.setattr(sync, "latents", 5)
    _, boxes, waveform = spoken
    sound = torch.from_numpy(mfcc(waveform))[None, :, : 4 * len(boxes)]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, LATENTS, 24, 24, generator=generator).requires_grad_()
    squares, place = squares_of(boxes)[None], torch.tensor([0.5])
    before = sync(latents, squares, sound, place)
    (gradient,) = torch.autograd.grad(before.sum(), latents)
    with torch.no_grad():
        after = sync(latents - 0.05 * gradient / gradient.square().mean().sqrt(), squares, sound, place)
        assert float(after) < float(before)
    told = gradient.abs().amax((0, 1))
    first = int(0.5 * (LATENTS - 5 + 1))
    assert bool((told[first + 1 : first + 5].amax((1, 2)) > 0).all()) and float(told[first + 5 :].max()) == 0
    assert float(told[:first].max()) == 0 and float(told[:, :4].max()) == 0


def test_what_cannot_be_decoded_alone_is_refused():
    with pytest.raises(InputError, match="with a picture"):
        LipSync(Path("weights/tiny"), 9, torch.device("cpu"))
