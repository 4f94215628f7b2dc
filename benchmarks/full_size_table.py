"""Print the table of docs/full-size.md: estimated peak memory and time of the full-size models, by mode.

Everything is followed on the meta device: no weights, no GPU, about a minute.
"""

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from skyreels_audio.acceleration.estimate import ModelShape, estimate, on_meta
from skyreels_audio.acceleration.offload import MemoryMode
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

MODELS = {"1.3B": (12, 8960, 30), "14B": (40, 13824, 40)}
SIZES = {"540p": (544, 960), "720p": (720, 1280)}
MODES: tuple[MemoryMode, ...] = ("fast", "balanced", "low")
FRAMES = 81


def full_size(heads: int, ffn: int, layers: int) -> ModelShape:
    """An image-to-video model with Wan's autoencoder and encoders, bfloat16, and the audio branch of whisper-base."""
    umt5 = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
    clip = CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14
    )
    with on_meta(torch.bfloat16):
        transformer = SkyReelsAudioTransformer3DModel(
            num_attention_heads=heads,
            ffn_dim=ffn,
            num_layers=layers,
            image_dim=1280,
            added_kv_proj_dim=128 * heads,
            audio_dim=512,
        )
        vae, encoders = AutoencoderKLWan(), (UMT5EncoderModel(umt5), CLIPVisionModel(clip))
    return ModelShape(transformer, vae, encoders)


def main() -> None:
    print("| model | size | mode | encoding | denoising | decoding | peak | denoising on an H100 |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for model, geometry in MODELS.items():
        shape = full_size(*geometry)
        for size, (height, width) in SIZES.items():
            for mode in MODES:
                needs = estimate(shape, height, width, FRAMES, mode)
                phases = (needs.encode, needs.sample, needs.decode, needs.peak)
                cells = " | ".join(f"{phase / 1e9:.1f} GB" for phase in phases)
                print(f"| {model} | {size} | {mode} | {cells} | {needs.seconds / 60:.0f} min |", flush=True)


if __name__ == "__main__":
    main()
