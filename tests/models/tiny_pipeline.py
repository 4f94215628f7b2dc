"""A whole pipeline of real classes at tiny size, with random weights."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from transformers import (
    ByT5Tokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    UMT5Config,
    UMT5EncoderModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.models.audio_features import AudioEncoder
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

DEFAULTS = {"height": 32, "width": 32, "num_inference_steps": 2, "window": 5, "overlap": 2}


def wan_autoencoder(channels: int, **options: Any) -> AutoencoderKLWan:
    torch.manual_seed(1)
    statistics = {"latents_mean": [0.1] * channels, "latents_std": [2.0] * channels}
    return AutoencoderKLWan(
        base_dim=4, z_dim=channels, dim_mult=[1, 1, 1, 1], num_res_blocks=1, **statistics, **options
    ).eval()


def make_pipeline(vae: torch.nn.Module, channels: int, clip: bool = False, **transformer) -> SkyReelsAudioPipeline:
    torch.manual_seed(0)
    image_dim = 12 if clip else None
    model = SkyReelsAudioTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=2 * channels + 4,
        out_channels=channels,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        audio_dim=16,
        image_dim=image_dim,
        added_kv_proj_dim=24 if clip else None,
        **transformer,
    ).eval()
    for name, weight in model.named_parameters():
        if "audio_attn.to_out" in name or "proj_out" in name:  # zero in a fresh model, which so would hear nothing
            torch.nn.init.normal_(weight, std=0.3)
    whisper = WhisperConfig(d_model=16, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=16)
    text = UMT5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    eyes = CLIPVisionConfig(
        hidden_size=12, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    return SkyReelsAudioPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=UMT5EncoderModel(text).eval(),
        feature_extractor=WhisperFeatureExtractor(),
        audio_encoder=AudioEncoder(whisper).eval(),
        vae=vae,
        transformer=model,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        image_encoder=CLIPVisionModel(eyes).eval() if clip else None,
        image_processor=CLIPImageProcessor(size={"height": 32, "width": 32}, crop_size=32) if clip else None,
        generation_defaults=DEFAULTS | {"text_tokens": 512 if clip else 32},
    )


@pytest.fixture(scope="session")
def wan_pipeline() -> SkyReelsAudioPipeline:
    """Wan's autoencoder and CLIP tokens, as full-size checkpoints have."""
    return make_pipeline(wan_autoencoder(4), channels=4, clip=True)


@pytest.fixture(scope="session")
def pipeline() -> SkyReelsAudioPipeline:
    """Local audio and a residual to the reference, as weights/tiny has; an autoencoder of 16 pixels, as Wan 2.2 has."""
    vae = wan_autoencoder(8, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16)
    return make_pipeline(vae, channels=8, reference_residual=True, audio_window=16.0)


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def voice() -> np.ndarray:
    """1.2 s, 30 frames at 25 fps."""
    time = np.arange(int(1.2 * 16000)) / 16000
    return (0.3 * np.sin(2 * np.pi * 150 * time) * (time % 0.4 < 0.3)).astype(np.float32)
