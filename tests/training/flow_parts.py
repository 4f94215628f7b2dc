"""A tiny model folder and batches of noise for tests of flow training."""

import json
from pathlib import Path
from typing import Any

import torch

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.models.rope import latent_positions
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.training.batch import Batch, generator_of
from skyreels_audio.training.recipe import FlowRecipe
from tests.training.small_task import options

CHANNELS, LATENTS, SIDE, TOKENS, AUDIO = 4, 3, 6, 20, 16


def save_transformer(folder: Path, **given: Any) -> Path:
    """A model folder that holds nothing but a transformer."""
    torch.manual_seed(0)
    usual: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 2 * CHANNELS + 4}
    usual |= {"out_channels": CHANNELS, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2}
    usual |= {"audio_dim": AUDIO} | given
    model: Any = SkyReelsAudioTransformer3DModel(**usual)
    for name, parameter in model.named_parameters():
        if "audio_attn.to_out" in name:  # which starts at zero
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / "transformer")
    (folder / "model_index.json").write_text(json.dumps({"generation_defaults": {}}))
    return folder


def noise_batch(samples: range, step: int, editing: bool = True) -> Batch:
    """Each sample follows from step and sample alone. The lips are the middle of the lower half."""

    def noise(index: int, *shape: int) -> torch.Tensor:
        return torch.stack([torch.randn(*shape, generator=generator_of(step, sample, index)) for sample in samples])

    clean, count = noise(0, CHANNELS, LATENTS, SIDE, SIDE), len(samples)
    known = torch.zeros(count, 4, LATENTS, SIDE, SIDE)
    known[:, :, 0] = 1
    edited = torch.ones_like(known)
    edited[:, :, 1:, 3:, 2:4] = 0
    lips = torch.zeros(count, LATENTS, SIDE, SIDE)
    lips[:, :, 4, 2:4] = 0.5
    conditions = Conditions(
        text_BSD=noise(1, 6, 16),
        null_text_BSD=torch.full((count, 6, 16), 0.25),
        audio_BAD=noise(2, TOKENS, AUDIO),
        audio_positions_A=(torch.arange(TOKENS) + 0.5).double().expand(count, -1),
        reference_BCTHW=clean * known[:, :1],
        known_B4THW=known,
        video_positions_T=latent_positions(LATENTS).expand(count, -1),
    )
    return Batch(clean, conditions, clean * edited[:, :1] if editing else None, edited if editing else None, lips)


class NoiseSource:
    """Batches of noise, always the same."""

    fingerprint = "noise"

    def batch(self, step: int, samples: range) -> Batch:
        return noise_batch(samples, step)

    def held_out(self, number: int) -> Batch | None:
        return noise_batch(range(4), 10_000 + number) if number < 2 else None


def flow_recipe(folder: Path, **given: Any) -> FlowRecipe:
    usual: dict[str, Any] = {
        "task": "flow",
        "output": folder / "run",
        "model": folder / "model",
        "data": [],
        "train": "all",
    }
    usual |= {"curriculum": {"image": 0.5, "editing": 0.3, "text": 0.2}, "loss": {"mask_gate": 0.3}}
    usual |= {"optimisation": options(steps=20, batch=4, learning_rate=0.003, schedule="constant", log_every=1)}
    usual |= given
    return FlowRecipe(**usual)
