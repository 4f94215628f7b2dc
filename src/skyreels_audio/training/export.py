"""A trained transformer as a model folder: what else it needs is the folder's that it came from."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skyreels_audio.models.convert.tensors import link_tree, read_safetensors, weight_files
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.training.distributed import whole


def whole_state(module: nn.Module, only_trained: bool = False) -> dict[str, Tensor]:
    """All weights of a module on the CPU by name, put together from shards; every process must ask for them."""
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    return {
        name.removeprefix("module."): whole(tensor.detach()).cpu()
        for name, tensor in module.state_dict().items()
        if name in trained or not only_trained
    }


def export_transformer(
    weights: dict[str, Tensor], config: dict[str, Any], source: Path, folder: Path, defaults: dict[str, Any]
) -> None:
    """Write the model folder ``folder``: this transformer, everything else as in ``source``; whole or not at all.

    The transformer keeps the precision that it has in ``source``.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for component in sorted(source.iterdir()):
        if component.is_dir() and component.name != "transformer":
            link_tree(component, partial / component.name)
    with torch.device("meta"):
        transformer: Any = SkyReelsAudioTransformer3DModel.from_config(config)
    transformer.load_state_dict(weights, assign=True)
    transformer.to(stored_dtype(source / "transformer")).save_pretrained(partial / "transformer")
    index = json.loads((source / "model_index.json").read_text())
    index["generation_defaults"] = index.get("generation_defaults", {}) | defaults
    (partial / "model_index.json").write_text(json.dumps(index, indent=2))
    _replace(partial, folder)


def export_lora(weights: dict[str, Tensor], alpha: float, folder: Path) -> None:
    """Write ``folder/pytorch_lora_weights.safetensors``, which `generate --lora` and diffusers' Wan pipelines load.

    ``weights``: the adapters as peft names them.
    """
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    rank = next(tensor.shape[0] for name, tensor in weights.items() if "lora_A" in name)
    # Loaders differ in where they look for alpha; a scale of 1 is the same to all of them.
    scaled = {name: tensor * (alpha / rank if "lora_B" in name else 1) for name, tensor in weights.items()}
    layers: Any = {name.replace(".default", ""): tensor.contiguous() for name, tensor in scaled.items()}
    WanPipeline.save_lora_weights(partial, transformer_lora_layers=layers)
    _replace(partial, folder)


def stored_dtype(folder: Path) -> torch.dtype:
    """The precision of most of a folder's weights."""
    tensors = read_safetensors(weight_files(folder)[0]).values()
    return Counter(tensor.dtype for tensor in tensors).most_common(1)[0][0]


def _replace(partial: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
