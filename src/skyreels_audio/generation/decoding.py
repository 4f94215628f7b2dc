"""Latents → frames in a stream: memory holds a few frames, however long the video."""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, unpatchify
from torch import Tensor

from skyreels_audio.generation.conditions import latent_statistics


@torch.no_grad()
def decode(latents_BCTHW: Tensor, vae: Any) -> Iterator[Tensor]:
    """Normalised latents [1, C, T, H, W] → uint8 frames [H, W, 3] on the CPU, 4 (T - 1) + 1 of them.

    They are the frames of ``vae.decode`` on the whole, made piece by piece. The latents are scaled in place.
    """
    mean, std = latent_statistics(vae, latents_BCTHW)
    scaled_BCTHW = latents_BCTHW.mul_(std).add_(mean).to(vae.dtype)
    wan = isinstance(vae, AutoencoderKLWan)
    for video_BCFHW in decode_wan(vae, scaled_BCTHW) if wan else vae.decode_stream(scaled_BCTHW):
        pixels_FHWC = video_BCFHW[0].permute(1, 2, 3, 0).float()
        yield from pixels_FHWC.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu()


def decode_wan(vae: Any, latents_BCTHW: Tensor) -> Iterator[Tensor]:
    """``vae.decode`` one latent at a time; the causal convolutions carry the past in the autoencoder's own cache."""
    if hasattr(vae, "_hf_hook"):  # offloading: the model moves to the accelerator when called, its parts do not
        vae._hf_hook.pre_forward(vae)
    vae.clear_cache()
    for index in range(latents_BCTHW.shape[2]):
        vae._conv_idx = [0]
        hidden = vae.post_quant_conv(latents_BCTHW[:, :, index : index + 1])
        video_BCFHW = vae.decoder(hidden, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=index == 0)
        if vae.config.patch_size is not None:
            video_BCFHW = unpatchify(video_BCFHW, patch_size=vae.config.patch_size)
        yield video_BCFHW.clamp(-1, 1)
    vae.clear_cache()
