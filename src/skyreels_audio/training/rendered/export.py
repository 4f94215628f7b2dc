"""A trained model as the folder that `generate --model` and `SkyReelsAudioPipeline.from_pretrained` load."""

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.models.audio_features import trim_whisper
from skyreels_audio.models.autoencoder import CausalVideoAutoencoder
from skyreels_audio.training.rendered.recipe import ClipsRecipe


def export_pipeline(
    modules: nn.ModuleDict, recipe: ClipsRecipe, tokenizer: Any, text_tokens: int, folder: Path
) -> None:
    """Write every component in float16, under a temporary name until all are there."""
    whisper = WhisperEncoder.from_pretrained(recipe.speech.whisper, dtype=torch.float16)
    transformer, text_encoder = (_copy(modules[name]) for name in ("transformer", "text_encoder"))
    defaults = {"height": recipe.data.size, "width": recipe.data.size, "text_tokens": text_tokens}
    pipeline = SkyReelsAudioPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        feature_extractor=WhisperFeatureExtractor.from_pretrained(recipe.speech.whisper),
        audio_encoder=trim_whisper(whisper, max(recipe.speech.layers), recipe.speech.layers),
        vae=CausalVideoAutoencoder.from_pretrained(recipe.autoencoder, torch_dtype=torch.float16),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=recipe.curriculum.sigma_shift),
        generation_defaults=defaults | recipe.generation_defaults,
    )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _copy(module: nn.Module) -> Any:
    """The module in float16, the one being trained untouched."""
    import copy

    return copy.deepcopy(module).to("cpu", torch.float16)
