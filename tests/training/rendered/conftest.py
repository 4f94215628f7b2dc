"""A training of real classes at tiny size, on clips of noise."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from skyreels_audio.models.autoencoder import CausalVideoAutoencoder
from skyreels_audio.training.rendered.clips import AUDIO_MARGIN, Clips

CHANNELS, LATENTS, AUDIO_DIM = 4, 3, 16
FRAMES = 4 * (LATENTS - 1) + 1


def noise_clips(count: int, seed: int) -> Clips:
    generator = torch.Generator().manual_seed(seed)
    tokens = 2 * FRAMES + 2 * AUDIO_MARGIN
    lips = torch.zeros(count, LATENTS, 8, 8, dtype=torch.uint8)
    lips[:, :, 5:6, 3:5] = 255
    return Clips(
        latents_NCTHW=torch.randn(count, CHANNELS, LATENTS, 8, 8, generator=generator).half(),
        stills_NRCHW=torch.randn(count, 3, CHANNELS, 8, 8, generator=generator).half(),
        lips_NTHW=lips,
        audio_NAD=torch.randn(count, tokens, AUDIO_DIM, generator=generator).half(),
        visemes_NAV=torch.rand(count, tokens, 9, generator=generator).half(),
        captions=tuple(f"person {i}" for i in range(count)),
        kinds=("synthetic",) * count,
    )


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    """A recipe whose data, autoencoder and Whisper lie in ``tmp_path``."""
    for split, count in (("train", 6), ("test", 4)):
        (tmp_path / "clips" / split).mkdir(parents=True)
        noise_clips(count, seed=count).save(tmp_path / "clips" / split / "shard-00000.safetensors")
    CausalVideoAutoencoder(
        z_dim=CHANNELS, coarse_width=8, coarse_blocks=1, fine_width=8, fine_blocks=1, latents_std=[1.0] * CHANNELS
    ).save_pretrained(tmp_path / "vae")
    config = WhisperConfig(d_model=AUDIO_DIM, encoder_layers=5, encoder_attention_heads=2, encoder_ffn_dim=16)
    WhisperEncoder(config).save_pretrained(tmp_path / "whisper")
    WhisperFeatureExtractor().save_pretrained(tmp_path / "whisper")
    recipe = {
        "task": "rendered-flow",
        "output": str(tmp_path / "run"),
        "autoencoder": str(tmp_path / "vae"),
        "speech": {"bank": str(tmp_path / "bank"), "whisper": str(tmp_path / "whisper")},
        "data": {
            "folder": str(tmp_path / "clips"),
            "shards": 1,
            "held_out_shards": 1,
            "kinds": [{"source": "synthetic", "share": 1.0}],
        },
        "transformer": {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 2 * CHANNELS + 4,
            "out_channels": CHANNELS,
            "text_dim": 16,
            "freq_dim": 16,
            "ffn_dim": 32,
            "num_layers": 2,
            "audio_dim": AUDIO_DIM,
            "audio_window": 10.0,
            "reference_residual": True,
        },
        "text_encoder": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
        "supervised_steps": 2,
        "curriculum": {"latent_frames": 2},
        "optimisation": {
            "steps": 8,
            "batch": 4,
            "learning_rate": 0.01,
            "warmup_steps": 2,
            "precision": "float32",
            "save_every": 4,
            "sample_every": 4,
            "log_every": 2,
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
