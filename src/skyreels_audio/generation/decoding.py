"""Latents → frames in a stream: memory holds a few frames, however long the video."""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor

from skyreels_audio.generation.latents import latent_statistics


class Scaled:
    """Latents of unit scale as the autoencoder's own, made as they are asked for by ``[:, :, start:stop]``."""

    def __init__(self, latents_BCTHW: Tensor, vae: Any) -> None:
        self.latents_BCTHW, self.vae = latents_BCTHW, vae
        self.shape = latents_BCTHW.shape

    def __getitem__(self, where: tuple[slice, slice, slice]) -> Tensor:
        part_BCTHW = self.latents_BCTHW[where]
        mean, std = latent_statistics(self.vae, part_BCTHW)
        return (part_BCTHW * std + mean).to(self.vae.dtype)


@torch.no_grad()
def decode(latents_BCTHW: Tensor, vae: Any) -> Iterator[Tensor]:
    """Normalised latents [1, C, T, H, W] → uint8 frames [H, W, 3] on the CPU, 4 (T - 1) + 1 of them.

    They are the frames of ``vae.decode`` on the whole, made piece by piece.
    """
    scaled: Any = Scaled(latents_BCTHW, vae)
    for video_BCFHW in decode_wan(vae, scaled):
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
