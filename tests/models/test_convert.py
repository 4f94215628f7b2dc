"""Converted backbones give the velocities of their originals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Timesteps
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from tiny_checkpoints import FAMILIES, original_shapes, save_diffusers, save_original, save_whisper, tiny_transformer

from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.models.convert import convert_backbone
from skyreels_audio.models.convert.keys import WAN
from skyreels_audio.models.convert.tensors import Lazy, write_shards
from skyreels_audio.models.convert.transformer import original_config, read_backbone, translate, with_audio
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

SIZES = {"1.3B": (12, 8960, 30), "14B": (40, 13824, 40)}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper"))


def convert_transformer(folder: Path, out: Path) -> SkyReelsAudioTransformer3DModel:
    shards, config = with_audio(*read_backbone(folder), {"audio_dim": 16})
    write_shards(out, "diffusion_pytorch_model", shards)
    (out / "config.json").write_text(json.dumps(config))
    loaded: Any = SkyReelsAudioTransformer3DModel.from_pretrained(out, output_loading_info=True)
    model, report = loaded
    assert not any(report.values()), report
    return model.eval()


def inputs(model, frames: int = 3, image: bool = True) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    given = {
        "hidden_states": torch.randn(2, model.config.in_channels, frames, 8, 4),
        "timestep": torch.tensor([900.0, 30.0]),
        "encoder_hidden_states": torch.randn(2, 512, 16),
    }
    if model.config.image_dim and image:
        given["encoder_hidden_states_image"] = torch.randn(2, 257, 80)
    return given


@pytest.mark.parametrize("layout", ["diffusers", "original"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_velocities_of_a_converted_backbone_are_the_originals(family, layout, tmp_path):
    model = tiny_transformer(family)
    if layout == "original":
        save_original(model, tmp_path / "source")
        # The original code of both families embeds timesteps in float64, diffusers' Wan in float32.
        model.condition_embedder.timesteps_proj = SkyReelsV2Timesteps(16, flip_sin_to_cos=True)
    else:
        model.save_pretrained(tmp_path / "source", max_shard_size="40KB")
    converted = convert_transformer(tmp_path / "source", tmp_path / "out")
    assert converted.config.in_channels == 36
    for image in {True, model.config.image_dim is None}:
        given = inputs(model, image=image)
        expected = model(**given).sample
        noise, channels = given.pop("hidden_states"), model.config.in_channels
        wide = torch.cat([noise, torch.randn(2, 36 - channels, *noise.shape[2:])], dim=1)
        for audio in ({}, {"audio_hidden_states": torch.randn(2, 8, 16)}):
            actual = converted(hidden_states=wide, **given, **audio).sample
            assert (actual - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_manifest_of_the_real_models(size, image):
    """Every published key in its published shape, in both layouts: nothing missing, nothing left over."""
    heads, ffn, layers = SIZES[size]
    width = heads * 128
    published = original_shapes(width, ffn, layers, image)
    given = {name: Lazy(shape, torch.bfloat16, lambda: torch.empty(0)) for name, shape in published.items()}
    tensors = translate(given, WAN)
    config = original_config(tensors, {}, Path("."))
    arguments = {name: value for name, value in config.items() if name != "exact_timesteps"}
    with torch.device("meta"):
        theirs = WanTransformer3DModel(**arguments)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()
    }
    shards, converted = with_audio([tensors], config, {"audio_dim": 512})
    assert (converted["num_layers"], converted["num_attention_heads"], converted["ffn_dim"]) == (layers, heads, ffn)
    assert (converted["in_channels"], converted["image_dim"]) == (36, 1280 if image else None)
    names = [name for shard in shards for name in shard]
    assert len(names) == len(set(names)) and len(shards) > 1
    billions = sum(np.prod(t.shape) for shard in shards for name, t in shard.items() if "audio" not in name) / 1e9
    assert billions == pytest.approx({"1.3B": 1.5, "14B": 15.3}[size], rel=0.08)


@pytest.mark.parametrize("family", ["SkyReels-V2-I2V-14B-540P", "Wan2.1-T2V-1.3B"])
def test_a_converted_folder_is_a_pipeline(family, whisper, tmp_path):
    """UMT5, 257 CLIP tokens, Wan's autoencoder 4×8×8, 36 channels, 81 frames in several windows."""
    save_diffusers(family, tmp_path / family)
    out = convert_backbone(tmp_path / family, tmp_path / "out", whisper=whisper)
    pipeline = SkyReelsAudioPipeline.from_pretrained(out)
    settings = pipeline.settings()
    assert (settings.height, settings.width) == ((544, 960) if "540P" in family else (480, 832))
    assert settings.unconditional_drops == ("text", "audio")
    voice = np.random.default_rng(0).normal(size=81 * 640).astype(np.float32) * 0.1
    portrait = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    options: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 2, "window": 8, "overlap": 3}
    video = pipeline(portrait, voice, "a man speaks", **options, generator=torch.Generator().manual_seed(0))
    frames = np.stack(list(video.frames))
    assert frames.shape == (81, 32, 32, 3) and frames.std() > 0
    options["audio_guidance_scale"] = 1
    silent = pipeline(portrait, 0 * voice, "a man speaks", **options, generator=torch.Generator().manual_seed(0))
    again = pipeline(portrait, voice, "a man speaks", **options, generator=torch.Generator().manual_seed(0))
    assert (np.stack(list(silent.frames)) == np.stack(list(again.frames))).all()  # the fresh branch adds zero
