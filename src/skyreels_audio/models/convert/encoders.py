"""Text encoder, image encoder and autoencoder of the original layout → folders of transformers and diffusers."""

import json
from pathlib import Path
from typing import Any

import torch

from skyreels_audio.media import InputError
from skyreels_audio.models.convert.keys import CLIP, UMT5
from skyreels_audio.models.convert.tensors import (
    Lazy,
    Tensors,
    check_manifest,
    read_state_dict,
    split_shards,
    why,
    write_shards,
)
from skyreels_audio.models.convert.transformer import translate

CLIP_HEAD_DIM = 80  # of ViT-H/14
CLIP_IMAGE_SIZE = 224


def convert_text_encoder(path: Path, folder: Path) -> None:
    """`models_t5_umt5-xxl-enc-bf16.pth` → transformers' UMT5EncoderModel."""
    from transformers import UMT5Config, UMT5EncoderModel

    tensors = translate(read_state_dict(path), UMT5, ("blocks.", "encoder.block."))
    try:
        vocabulary, width = tensors["shared.weight"].shape
        first = "encoder.block.0.layer."
        buckets, heads = tensors[f"{first}0.SelfAttention.relative_attention_bias.weight"].shape
        config = UMT5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=tensors[f"{first}0.SelfAttention.q.weight"].shape[0] // heads,
            d_ff=tensors[f"{first}1.DenseReluDense.wi_0.weight"].shape[0],
            num_layers=1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.block.")),
            num_heads=heads,
            relative_attention_num_buckets=buckets,
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} does not hold Wan's text encoder: {why(error)}.") from error
    with torch.device("meta"):
        expected = UMT5EncoderModel(config).state_dict()
    del expected["encoder.embed_tokens.weight"]  # the same tensor as `shared`
    _write(UMT5EncoderModel.__name__, config, tensors, expected, folder, str(path))


def convert_image_encoder(path: Path, folder: Path) -> None:
    """`models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth` → CLIPVisionModel; its text half is left."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    given = {name: tensor for name, tensor in read_state_dict(path).items() if name.startswith("visual.")}
    given.pop("visual.head", None)  # projects to CLIP's joint space; Wan reads the layer before the last
    tensors = translate(given, CLIP, ("visual.transformer.", "encoder.layers."))
    try:
        for name in ("embeddings.class_embedding", "embeddings.position_embedding.weight"):
            tensors[name] = _without_ones(tensors[name])
        width, _, patch, _ = tensors["embeddings.patch_embedding.weight"].shape
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=tensors["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=1 + max(int(n.split(".")[2]) for n in tensors if n.startswith("encoder.layers.")),
            num_attention_heads=width // CLIP_HEAD_DIM,
            image_size=CLIP_IMAGE_SIZE,
            patch_size=patch,
            hidden_act="gelu",
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} does not hold Wan's image encoder: {why(error)}.") from error
    with torch.device("meta"):
        expected = CLIPVisionModel(config).state_dict()
    _write(CLIPVisionModel.__name__, config, tensors, expected, folder, str(path))


def convert_autoencoder(path: Path, folder: Path) -> None:
    """`Wan2.1_VAE.pth` → diffusers' AutoencoderKLWan, by diffusers' own key map."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    tensors: Tensors = convert_wan_vae_to_diffusers(read_state_dict(path))
    with torch.device("meta"):
        vae = AutoencoderKLWan()
    check_manifest(tensors, {name: tuple(t.shape) for name, t in vae.state_dict().items()}, str(path))
    write_shards(folder, "diffusion_pytorch_model", [tensors])
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan", **dict(vae.config)}, indent=2))


def _write(
    architecture: str, config: Any, tensors: Tensors, expected: dict[str, torch.Tensor], folder: Path, what: str
) -> None:
    check_manifest(tensors, {name: tuple(tensor.shape) for name, tensor in expected.items()}, what)
    write_shards(folder, "model", split_shards(tensors))
    config.architectures = [architecture]
    config.dtype = next(iter(tensors.values())).dtype
    config.save_pretrained(folder)


def _without_ones(tensor: Lazy) -> Lazy:
    """[1, 1, D] → [D] and [1, N, D] → [N, D]."""
    shape = tuple(side for side in tensor.shape if side != 1)
    return Lazy(shape, tensor.dtype, lambda: tensor.load().reshape(shape))
