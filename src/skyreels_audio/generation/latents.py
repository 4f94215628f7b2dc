"""Frames → normalised latents and their mask, in a stream: memory holds a few frames, however long the video.

Legend: B batch, C latent channel, T latent frame, F pixel frame, H W grid (latent or pixel).
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, patchify
from torch import Tensor

from skyreels_audio.generation.masks import fold, pool_known
from skyreels_audio.models.rope import FRAMES_PER_LATENT

PIECE = 8 * FRAMES_PER_LATENT
"""Frames that are encoded at once."""


@torch.no_grad()
def build_reference(
    frames_FHWC: np.ndarray | None,
    known_FHW: np.ndarray | None,
    latents: int,
    vae: Any,
    size: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """V_s and V_M of the paper: normalised latents of the given pixels [1, C, T, H, W] and their mask [1, 4, T, H, W].

    Image animation gives one frame; what follows is empty (grey before encoding). Video editing gives all frames and
    what is known of them (1 = given pixel); the first frame is the reference and always known. Text alone gives
    nothing: zeros. The mask is that of ``masks.to_latent``. Frames are read and encoded a few at a time.

    Args:
        frames_FHWC: uint8 RGB at the size of the video; up to ``4 (T - 1) + 1`` of them.
        known_FHW: 1 where pixels of ``frames_FHWC`` are given; None: everywhere.
        latents: T.
        vae: causal video autoencoder.
        size: pixel height and width, needed when there are no frames.
        device: where the autoencoder runs; None: where it is.
    """
    count = FRAMES_PER_LATENT * (latents - 1) + 1
    height, width = frames_FHWC.shape[1:3] if frames_FHWC is not None else size or (0, 0)
    factor, device = spatial_factor(vae), device or vae.device
    if frames_FHWC is None:
        shape = (1, vae.config.z_dim, latents, height // factor, width // factor)
        return torch.zeros(shape, device=device), torch.zeros(1, FRAMES_PER_LATENT, *shape[2:], device=device)

    given = len(frames_FHWC)
    assert given <= count, "more frames than the timeline holds"
    shown_F = np.arange(count).clip(max=given - 1)  # a video that ends within a latent goes on with its last frame
    pieces = list(pairwise([0, *range(1, count, PIECE), count]))  # memory holds one of them

    def known(start: int, stop: int) -> Tensor:
        if known_FHW is None:
            part_FHW = torch.zeros(stop - start, height, width)
            part_FHW[: max(given - start, 0)] = 1
        else:
            part_FHW = torch.from_numpy(np.asarray(known_FHW[shown_F[start:stop]], np.float32))
        if not start:
            part_FHW[0] = 1
        return part_FHW

    def pixels(start: int, stop: int) -> Tensor:
        pixels_FCHW = torch.from_numpy(frames_FHWC[shown_F[start:stop]]).permute(0, 3, 1, 2) / 127.5 - 1
        return (pixels_FCHW * known(start, stop)[:, None]).transpose(0, 1)[None].to(device, vae.dtype)

    latents_BCTHW = encode((pixels(*piece) for piece in pieces), vae)
    mask_4THW = fold(torch.cat([pool_known(known(*piece), factor) for piece in pieces]))
    return normalise(latents_BCTHW.float(), vae), mask_4THW[None].to(device)


def spatial_factor(vae: Any) -> int:
    """Pixels per latent pixel."""
    return vae.config.scale_factor_spatial


def latent_statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that bring the autoencoder's latents to unit scale, each [C, 1, 1, 1]."""
    channels = vae.config.z_dim
    mean, std = vae.config.latents_mean or [0.0] * channels, vae.config.latents_std or [1.0] * channels
    return like.new_tensor(mean).view(-1, 1, 1, 1), like.new_tensor(std).view(-1, 1, 1, 1)


def normalise(latents_BCTHW: Tensor, vae: Any) -> Tensor:
    """The autoencoder's latents → latents of unit scale, which the transformer works on."""
    mean, std = latent_statistics(vae, latents_BCTHW)
    return (latents_BCTHW - mean) / std


@torch.no_grad()
def encode(pieces: Iterable[Tensor], vae: Any) -> Tensor:
    """A video that comes in pieces [1, 3, F, H, W], -1 … 1 → its latents [1, C, T, H, W], as the autoencoder has them.

    The first piece has 4n + 1 frames, each other one 4n. They are the latents of ``vae.encode`` on the whole.
    """
    parts = encode_wan(vae, pieces) if isinstance(vae, AutoencoderKLWan) else encode_motion(vae, pieces)
    return torch.cat(list(parts), dim=2)


def encode_motion(vae: Any, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Every latent of ``MotionAutoencoder`` depends on its own frames alone."""
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
