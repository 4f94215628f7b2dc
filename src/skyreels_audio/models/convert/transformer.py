"""The diffusion transformer of a public checkpoint → ours, tensor by tensor."""

import inspect
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skyreels_audio.media import InputError
from skyreels_audio.models.convert.keys import MULTITALK, WAN, rename
from skyreels_audio.models.convert.tensors import (
    Lazy,
    Tensors,
    check_manifest,
    read_json,
    read_safetensors,
    split_shards,
    weight_files,
    why,
)

WAN_HEAD_DIM = 128
STEM = "diffusion_pytorch_model"


def read_backbone(folder: Path) -> tuple[list[Tensors], dict[str, Any]]:
    """The shards of a transformer, under our names, and its configuration.

    Args:
        folder: of the weights: `transformer/` of a diffusers layout, or the original layout's own.

    Raises:
        InputError: there are no weights, or shards of them are missing or truncated.
    """
    shards = [read_safetensors(path) for path in weight_files(folder)]
    diffusers_layout = any(name.startswith("condition_embedder.") for shard in shards for name in shard)
    config_path = folder / "config.json"
    config = read_json(config_path) if diffusers_layout or config_path.exists() else {}
    if diffusers_layout:
        # Of the two classes, SkyReels' alone embeds timesteps in float64; the original code of both does.
        return shards, config | {"exact_timesteps": config.get("_class_name") == "SkyReelsV2Transformer3DModel"}
    shards = [translate(shard, WAN | MULTITALK) for shard in shards]
    return shards, original_config({name: t for shard in shards for name, t in shard.items()}, config, folder)


def translate(tensors: Tensors, table: dict[str, str], block: tuple[str, str] = ("", "")) -> Tensors:
    """The same tensors under our names; stacked projections become separate tensors."""
    translated: Tensors = {}
    for name, tensor in tensors.items():
        targets = rename(name, table, block)
        for part, target in enumerate(targets):
            translated[target] = _part(tensor, part, len(targets)) if len(targets) > 1 else tensor
    return translated


def _part(whole: Lazy, part: int, parts: int) -> Lazy:
    rows = whole.shape[0] // parts
    return Lazy((rows, *whole.shape[1:]), whole.dtype, lambda: whole.load()[part * rows : (part + 1) * rows].clone())


def original_config(tensors: Tensors, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration of an original checkpoint: what shapes tell, and its config.json for what they do not."""
    try:
        width, in_channels, *patch = tensors["patch_embedding.weight"].shape
        depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
        image_norm = tensors.get("condition_embedder.image_embedder.norm1.weight")
        heads = given.get("num_heads", width // WAN_HEAD_DIM)
        if not isinstance(heads, int) or heads < 1 or width % (2 * heads):
            raise InputError(
                f"{folder / 'config.json'}: num_heads {heads!r} does not divide the width {width} into even parts."
            )
        return {
            "patch_size": patch,
            "num_attention_heads": heads,
            "attention_head_dim": width // heads,
            "in_channels": in_channels,
            "out_channels": tensors["proj_out.weight"].shape[0] // torch.Size(patch).numel(),
            "text_dim": tensors["condition_embedder.text_embedder.linear_1.weight"].shape[1],
            "freq_dim": tensors["condition_embedder.time_embedder.linear_1.weight"].shape[1],
            "ffn_dim": tensors["blocks.0.ffn.net.0.proj.weight"].shape[0],
            "num_layers": depth,
            "eps": given.get("eps", 1e-6),
            "image_dim": None if image_norm is None else image_norm.shape[0],
            "added_kv_proj_dim": None if image_norm is None else width,
            "exact_timesteps": True,
        }
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{folder} holds weights, but not those of a Wan or SkyReels-V2 model ({why(error)})."
        ) from error


def with_audio(
    shards: list[Tensors], source: dict[str, Any], audio: dict[str, Any], extra: Tensors | None = None, seed: int = 0
) -> tuple[list[Tensors], dict[str, Any]]:
    """A backbone with an audio branch: the converted shards and the configuration of our transformer.

    Args:
        shards: from ``read_backbone``.
        source: its configuration; what our transformer has no argument for must be at diffusers' default.
        audio: the audio arguments of our configuration.
        extra: weights that replace or join those of the backbone; None makes a fresh audio branch, which adds zero.
        seed: of the fresh branch.

    Raises:
        InputError: tensors are missing, left over or of the wrong size.
    """
    from skyreels_audio.models.transformer import MASK_CHANNELS, SkyReelsAudioTransformer3DModel

    known = inspect.signature(SkyReelsAudioTransformer3DModel.__init__).parameters.keys()
    config = {name: value for name, value in source.items() if name in known} | audio
    shards = [dict(shard) for shard in shards]
    if not {"in_channels", "out_channels"} <= config.keys():
        raise InputError("The config.json of the transformer lacks in_channels or out_channels; download it again.")
    channels = 2 * config["out_channels"] + MASK_CHANNELS
    if config["in_channels"] == config["out_channels"]:  # text to video: reads the noise alone
        config["in_channels"] = channels
        for shard in shards:
            if "patch_embedding.weight" in shard:
                shard["patch_embedding.weight"] = _widened(shard["patch_embedding.weight"], channels)
    elif config["in_channels"] != channels:
        raise InputError(
            f"The backbone reads {config['in_channels']} channels; only {config['out_channels']} or {channels} will do."
        )

    try:
        with torch.device("meta"):
            model = SkyReelsAudioTransformer3DModel(**config)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "its sizes contradict each other"
        raise InputError(f"No transformer can be made of this config.json: {reason}.") from error
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    dtype = next(tensors["proj_out.weight"].dtype for tensors in shards if "proj_out.weight" in tensors)
    if extra is None:
        fresh = {name: shape for name, shape in expected.items() if "audio_" in name}
        extra = {name: _fresh(name, shape, expected, dtype, seed) for name, shape in fresh.items()}
    else:
        for shard in shards:
            shard.update({name: tensor for name, tensor in extra.items() if name in shard})
    present = {name for shard in shards for name in shard}
    shards += split_shards({name: tensor for name, tensor in extra.items() if name not in present})
    shards = [shard for shard in shards if shard]
    check_manifest({n: t for shard in shards for n, t in shard.items()}, expected, "The transformer")
    return shards, {"_class_name": "SkyReelsAudioTransformer3DModel", **dict(model.config)}


def _widened(weight: Lazy, channels: int) -> Lazy:
    """Patch embedding that reads mask and condition too, with weight zero: the output does not change."""

    def load() -> Tensor:
        given = weight.load()
        wide = given.new_zeros(given.shape[0], channels, *given.shape[2:])
        wide[:, : given.shape[1]] = given
        return wide

    return Lazy((weight.shape[0], channels, *weight.shape[2:]), weight.dtype, load)


def _fresh(
    name: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, seed: int
) -> Lazy:
    """A new weight: PyTorch's own initial values, zero for the output of audio attention, from a seed of its own."""

    def load() -> Tensor:
        if ".to_out." in name or ("norm" in name and name.endswith("bias")):
            return torch.zeros(shape, dtype=dtype)
        if "norm" in name:
            return torch.ones(shape, dtype=dtype)
        fan_in = torch.Size(shapes[name.rpartition(".")[0] + ".weight"][1:]).numel()
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        return torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator).to(dtype)

    return Lazy(shape, dtype, load)
