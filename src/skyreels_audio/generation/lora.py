"""LoRA adapters in the naming of Wan or of diffusers, several at once, each at its own strength."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skyreels_audio.media import InputError


def parse_lora(spec: str) -> tuple[Path, float]:
    """`FILE` or `FILE:scale` → the file and its strength (1 without one)."""
    path, colon, scale = spec.rpartition(":")
    try:
        path, strength = (Path(path), float(scale)) if colon else (Path(spec), 1.0)
    except ValueError:
        path, strength = Path(spec), 1.0  # the colon is part of the name
    if not path.is_file():
        raise InputError(f"{path} does not exist; a LoRA is given as FILE or FILE:scale.")
    return path, strength


def load_loras(pipeline: Any, specs: Sequence[str]) -> None:
    """Attach LoRA adapters to the transformer of ``pipeline``; a text-to-video LoRA fits an image-to-video model too.

    Raises:
        InputError: a file is missing, or is no LoRA of this transformer.
    """
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    loader = logging.getLogger("diffusers.loaders")
    loader.setLevel(logging.CRITICAL)  # what is wrong is said below, in one sentence
    strengths: dict[str, float] = {}
    for number, spec in enumerate(specs):
        path, strength = parse_lora(spec)
        try:
            weights: Any = WanLoraLoaderMixin.lora_state_dict(str(path.parent), weight_name=path.name)
            if not weights:
                raise ValueError("it holds no tensors")
            if not all("lora" in name for name in weights):
                raise ValueError("not all of its weights are named lora")
            weights = WanLoraLoaderMixin._maybe_expand_t2v_lora_for_i2v(pipeline.transformer, weights)
            WanLoraLoaderMixin.load_lora_into_transformer(weights, pipeline.transformer, adapter_name=f"lora{number}")
        except (ValueError, KeyError, RuntimeError, OSError) as error:
            said = str(error).strip().splitlines()  # the first line of several may only announce them
            reason = said[1 if said[0].endswith(":") and said[1:] else 0].strip()
            raise InputError(f"{path} is no LoRA for this transformer ({reason}).") from error
        strengths[f"lora{number}"] = strength
    if strengths:
        pipeline.transformer.set_adapters(list(strengths), list(strengths.values()))
