"""Frames → latents in a stream: memory holds a few frames, however long the video."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, patchify
from torch import Tensor

from skyreels_audio.models.rope import FRAMES_PER_LATENT


@torch.no_grad()
def encode(pieces: Iterable[Tensor], vae: Any) -> Tensor:
    """A video that comes in pieces [1, 3, F, H, W], -1 … 1 → its latents [1, C, T, H, W], as the autoencoder has them.

    The first piece has 4n + 1 frames, each other one 4n. They are the latents of ``vae.encode`` on the whole.
    """
    parts = encode_wan(vae, pieces) if isinstance(vae, AutoencoderKLWan) else encode_ours(vae, pieces)
    return torch.cat(list(parts), dim=2)


def encode_ours(vae: Any, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Every latent of ``CausalVideoAutoencoder`` depends on its own frames alone."""
    for number, piece_BCFHW in enumerate(pieces):
        if number:  # one frame in front, since the first frame makes a latent of its own
            piece_BCFHW = torch.cat([piece_BCFHW[:, :, :1], piece_BCFHW], dim=2)
        yield vae.encode(piece_BCFHW).latent_dist.mode()[:, :, 1 if number else 0 :]


def encode_wan(vae: Any, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """``vae.encode`` one latent at a time; the causal convolutions carry the past in the autoencoder's own cache."""
    if hasattr(vae, "_hf_hook"):  # offloading: the model moves to the accelerator when called, its parts do not
        vae._hf_hook.pre_forward(vae)
    vae.clear_cache()
    for piece_BCFHW in pieces:
        if vae.config.patch_size is not None:
            piece_BCFHW = patchify(piece_BCFHW, patch_size=vae.config.patch_size)
        first = piece_BCFHW.shape[2] % FRAMES_PER_LATENT
        for latent in range(piece_BCFHW.shape[2] // FRAMES_PER_LATENT + first):
            stop = first + FRAMES_PER_LATENT * (latent + 1 - first)
            frames = piece_BCFHW[:, :, max(stop - FRAMES_PER_LATENT, 0) : stop]
            vae._enc_conv_idx = [0]
            hidden = vae.encoder(frames, feat_cache=vae._enc_feat_map, feat_idx=vae._enc_conv_idx)
            yield vae.quant_conv(hidden).chunk(2, dim=1)[0]  # the mean; the other half is the log variance
    vae.clear_cache()
