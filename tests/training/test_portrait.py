"""Words → portraits, from training to a picture, at tiny size."""

import numpy as np
import torch

from skyreels_audio.generation.portrait_from_words import generate_portrait
from skyreels_audio.models.portrait_autoencoder import PortraitAutoencoder
from skyreels_audio.models.portrait_code import CODE_CHANNELS
from skyreels_audio.synthetic.words import word_tokenizer
from skyreels_audio.training import portrait
from skyreels_audio.training.motion.recipe import PortraitRecipe
from skyreels_audio.training.options import Optimisation
from skyreels_audio.training.portrait import PortraitTask
from skyreels_audio.training.trainer import fit


def recipe(folder) -> PortraitRecipe:
    vae = PortraitAutoencoder(
        vertices=3, triangles=1, width=8, blocks=1, code_width=8, scale_factor_spatial=32,
        latents_mean=[0.4] * CODE_CHANNELS, latents_std=[0.3] * CODE_CHANNELS,
    )  # fmt: skip
    vae.save_pretrained(folder / "vae")
    return PortraitRecipe(
        task="portrait",
        output=folder / "run",
        codes=folder / "codes.npz",
        portraits=16,
        autoencoder=folder / "vae",
        transformer={
            "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "freq_dim": 16, "ffn_dim": 16,
            "num_layers": 1,
        },  # fmt: skip
        text_encoder={"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
        optimisation=Optimisation(
            steps=30, batch=8, learning_rate=0.01, warmup_steps=2, precision="float32", save_every=30, sample_every=30,
            log_every=30,
        ),
    )  # fmt: skip


def test_words_become_a_portrait(tmp_path, monkeypatch):
    monkeypatch.setattr(portrait, "HELD_OUT", 32)
    settings = recipe(tmp_path)
    torch.manual_seed(0)
    task = PortraitTask(settings, torch.device("cpu"))
    before = np.mean([task.loss(step)[1]["flow_loss"] for step in range(4)])
    state = fit(task, settings.optimisation, settings.output)
    after = np.mean([task.loss(step)[1]["flow_loss"] for step in range(4)])
    assert after < 0.9 * before

    codes, captions = task.draw(8, torch.Generator().manual_seed(0))
    lengths = [len(text) for text in captions]
    assert codes.shape == (8, CODE_CHANNELS, 1, 1, 1) and lengths == sorted(lengths)

    vae = PortraitAutoencoder.from_pretrained(settings.autoencoder)
    with state.averaging() as averaged:
        parts = averaged["portrait_transformer"], vae, averaged["portrait_text_encoder"], word_tokenizer()

        def make(seed: int, prompt: str = "an old man with a white beard", **options) -> np.ndarray:
            return generate_portrait(prompt, *parts, torch.Generator().manual_seed(seed), steps=3, **options)

        first = make(1)
        assert first.shape == (32, 32, 3) and first.dtype == np.uint8
        assert np.array_equal(first, make(1))
        assert not np.array_equal(first, make(2))
        assert np.array_equal(make(1, ""), make(1, "", guidance=1.0))  # no words: nothing to guide by
