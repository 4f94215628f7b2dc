"""Checkpoints of the public families at tiny size, with random weights, in diffusers' layout and the original one."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Transformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from safetensors.torch import save_file
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
from transformers.models.whisper.modeling_whisper import WhisperEncoder

FAMILIES = {
    "SkyReels-V2-I2V-1.3B-540P": (SkyReelsV2Transformer3DModel, True, 2),
    "SkyReels-V2-I2V-14B-540P": (SkyReelsV2Transformer3DModel, True, 4),
    "SkyReels-V2-I2V-14B-720P": (SkyReelsV2Transformer3DModel, True, 4),
    "SkyReels-V2-T2V-14B-540P": (SkyReelsV2Transformer3DModel, False, 4),
    "SkyReels-V2-T2V-14B-720P": (SkyReelsV2Transformer3DModel, False, 4),
    "Wan2.1-T2V-1.3B": (WanTransformer3DModel, False, 2),
    "Wan2.1-T2V-14B": (WanTransformer3DModel, False, 4),
    "Wan2.1-I2V-14B-480P": (WanTransformer3DModel, True, 4),
    "Wan2.1-I2V-14B-720P": (WanTransformer3DModel, True, 4),
}
"""Diffusers' class, image to video, heads (in proportion)."""


def original_shapes(
    width: int, ffn: int, layers: int, image: bool, text: int = 4096, freq: int = 256, eyes: int = 1280
) -> dict[str, tuple[int, ...]]:
    """Every name of an original Wan / SkyReels-V2 checkpoint with its shape, as published."""
    linear = {"text_embedding.0": (width, text), "text_embedding.2": (width, width), "head.head": (64, width)}
    linear |= {"time_embedding.0": (width, freq), "time_embedding.2": (width, width)}
    linear |= {"time_projection.1": (6 * width, width), "patch_embedding": (width, 36 if image else 16, 1, 2, 2)}
    shapes: dict[str, tuple[int, ...]] = {"head.modulation": (1, 2, width)}
    if image:
        linear |= {"img_emb.proj.0": (eyes,), "img_emb.proj.4": (width,)}
        linear |= {"img_emb.proj.1": (eyes, eyes), "img_emb.proj.3": (width, eyes)}
    for block in (f"blocks.{i}." for i in range(layers)):
        shapes[block + "modulation"] = (1, 6, width)
        linear |= {block + "norm3": (width,), block + "ffn.0": (ffn, width), block + "ffn.2": (width, ffn)}
        for attention, more in (("self_attn", []), ("cross_attn", ["k_img", "v_img"] if image else [])):
            linear |= {f"{block}{attention}.{part}": (width, width) for part in [*"qkvo", *more]}
            norms = ["norm_q", "norm_k", *(["norm_k_img"] if more else [])]
            shapes |= {f"{block}{attention}.{norm}.weight": (width,) for norm in norms}
    for stem, shape in linear.items():
        shapes |= {f"{stem}.weight": shape, f"{stem}.bias": shape[:1]}
    return shapes


def tiny_transformer(family: str, channels: int = 16) -> Any:
    model_class, image, heads = FAMILIES[family]
    torch.manual_seed(len(family))
    width = heads * 12
    model = model_class(
        num_attention_heads=heads,
        attention_head_dim=12,
        in_channels=2 * channels + 4 if image else channels,
        out_channels=channels,
        text_dim=16,
        freq_dim=16,
        ffn_dim=40,
        num_layers=2,
        image_dim=80 if image else None,
        added_kv_proj_dim=width if image else None,
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def save_original(model: Any, folder: Path, shards: int = 2) -> None:
    """The weights under their original names, spread over shards, with the original config.json."""
    config = model.config
    width = config.num_attention_heads * config.attention_head_dim
    names = original_shapes(width, config.ffn_dim, config.num_layers, config.image_dim is not None)
    ours = convert_wan_transformer_to_diffusers({name: name for name in names})
    state = model.state_dict()
    assert ours.keys() == state.keys()
    folder.mkdir(parents=True, exist_ok=True)
    weights = {original: state[name].contiguous() for name, original in ours.items()}
    for shard in range(shards):
        part = dict(list(weights.items())[shard::shards])
        save_file(part, folder / f"diffusion_pytorch_model-{shard + 1:05d}-of-{shards:05d}.safetensors")
    given = {"dim": width, "num_heads": config.num_attention_heads, "num_layers": config.num_layers, "eps": config.eps}
    (folder / "config.json").write_text(json.dumps(given))


def save_diffusers(family: str, folder: Path) -> Any:
    """A whole tiny checkpoint in diffusers' layout; returns its transformer."""
    model, image = tiny_transformer(family), FAMILIES[family][1]
    model.save_pretrained(folder / "transformer")
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.1] * 16, latents_std=[2.0] * 16
    )
    vae.save_pretrained(folder / "vae")
    text = UMT5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    ByT5Tokenizer().save_pretrained(folder / "tokenizer")
    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True).save_pretrained(
        folder / "scheduler"
    )
    index = {
        "_class_name": "WanPipeline",
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "ByT5Tokenizer"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "transformer": ["diffusers", type(model).__name__],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    }
    if image:
        eyes = CLIPVisionConfig(
            hidden_size=80,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=1,
            image_size=224,
            patch_size=14,
        )
        CLIPVisionModel(eyes).save_pretrained(folder / "image_encoder")
        CLIPImageProcessor(size={"height": 224, "width": 224}, do_center_crop=False).save_pretrained(
            folder / "image_processor"
        )
        index |= {
            "image_encoder": ["transformers", "CLIPVisionModel"],
            "image_processor": ["transformers", "CLIPImageProcessor"],
        }
    (folder / "model_index.json").write_text(json.dumps(index))
    return model


def save_whisper(folder: Path, width: int = 16) -> Path:
    config = WhisperConfig(d_model=width, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=16)
    WhisperEncoder(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def block_numbers(names: list[str]) -> set[int]:
    return {int(match[1]) for name in names if (match := re.match(r"blocks\.(\d+)\.", name))}
