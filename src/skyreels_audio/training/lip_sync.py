"""A loss on the lips alone: do they say the clip's own sound, by a sync expert? Off by default; the paper has none.

Wav2Lip (Prajwal et al. 2020) trains so, LatentSync (Li et al. 2024) on the decoded clean latents of a diffusion model.

B batch, C latent channel, T latent frame, F pixel frame, H W grid, M column of 10 ms.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor

from skyreels_audio.generation.latents import latent_statistics, spatial_factor
from skyreels_audio.media import InputError
from skyreels_audio.models.rope import FRAMES_PER_LATENT
from skyreels_audio.models.syncnet import MFCC_PER_FRAME, load_sync_expert

AROUND = 2
"""Latents around the mouth that are decoded with it, so that the cut's border stays out of the picture."""


class LipSync:
    """Decodes the mouth in a stretch of latents and asks our own sync expert (`OURS`).

    Args:
        model: a model folder, whose autoencoder decodes.
        latents: of a stretch. The frames of the first are left out: without the past they are not what they will be.
        device: where.

    Raises:
        InputError: the autoencoder needs a picture to decode.
    """

    def __init__(self, model: Path, latents: int, device: torch.device) -> None:
        config: Any = AutoencoderKLWan.load_config(model / "vae")
        if config["_class_name"] != AutoencoderKLWan.__name__:
            raise InputError(f"loss.sync_weight: the latents of {model} are decoded with a picture; set it to 0.")
        vae: Any = AutoencoderKLWan.from_pretrained(model / "vae", torch_dtype=torch.float32)
        self.vae, self.latents = vae.requires_grad_(False).to(device), latents
        expert: Any = load_sync_expert()
        self.expert = expert.requires_grad_(False).to(device)

    def __call__(self, clean_BCTHW: Tensor, squares_BF4: Tensor, mfcc_BCM: Tensor, stretch_B: Tensor) -> Tensor:
        """1 - cosine of lips and sound, mean over windows of five frames [B]; 0 if there are under three latents.

        Args:
            clean_BCTHW: normalised latents.
            squares_BF4, mfcc_BCM: see `Batch`.
            stretch_B: where in the clip the stretch lies, 0 … 1.
        """
        losses, count = [], min(self.latents, clean_BCTHW.shape[2])
        if count < 3:
            return clean_BCTHW.new_zeros(len(clean_BCTHW))
        for clean_CTHW, squares_F4, mfcc_CM, place in zip(clean_BCTHW, squares_BF4, mfcc_BCM, stretch_B, strict=True):
            first = int(place * (clean_CTHW.shape[1] - count + 1))
            start, stop = FRAMES_PER_LATENT * first + 1, FRAMES_PER_LATENT * (first + count - 1) + 1
            pictures = self.mouths(clean_CTHW[None, :, first : first + count], squares_F4[start:stop])
            with torch.autocast(pictures.device.type, enabled=False):  # small maps of small differences
                lips = self.expert.embed_pictures(pictures[None])
                sound = self.expert.embed_audio(mfcc_CM[None, :, MFCC_PER_FRAME * start : MFCC_PER_FRAME * stop])
            losses.append(1 - F.cosine_similarity(lips, sound, dim=-1).mean())
        return torch.stack(losses)

    def mouths(self, clean_1CTHW: Tensor, squares_F4: Tensor) -> Tensor:
        """What the expert sees of all frames but the first: [3, F, side, side], 0 … 255 (`SyncNet.crop`)."""
        left, top, right, bottom = self.expert.config.region
        side = squares_F4[:, 2:3] - squares_F4[:, :1]
        boxes_F4 = squares_F4[:, [0, 1, 0, 1]] + side * side.new_tensor([left, top, right, bottom])

        cell, shape = spatial_factor(self.vae), boxes_F4.new_tensor(clean_1CTHW.shape[:2:-1])  # W, H
        low = (boxes_F4[:, :2].amin(0) / cell - AROUND).floor().clamp(min=0).minimum(shape - 1)
        high = (boxes_F4[:, 2:].amax(0) / cell + AROUND).ceil().minimum(shape).maximum(low + 1)
        (x, y), (x_end, y_end) = low.int().tolist(), high.int().tolist()
        part = clean_1CTHW[..., y:y_end, x:x_end].float()
        mean, std = latent_statistics(self.vae, part)
        frames_F3HW = self.vae.decode(part * std + mean).sample[0, :, 1:].transpose(0, 1).float()

        # Every frame's box in the units of grid_sample, read twice as finely as needed, then averaged.
        boxes_F4 = 2 * (boxes_F4 - cell * low.repeat(2)) / (cell * (high - low)).repeat(2) - 1
        fine = 2 * self.expert.config.side
        share = (torch.arange(fine, device=boxes_F4.device) + 0.5) / fine
        x_FW, y_FH = (boxes_F4[:, i, None].lerp(boxes_F4[:, i + 2, None], share) for i in (0, 1))
        grid = torch.stack([x_FW[:, None].expand(-1, fine, -1), y_FH[..., None].expand(-1, -1, fine)], -1)
        seen_F3HW = F.grid_sample(frames_F3HW, grid, padding_mode="border", align_corners=False)
        return 127.5 * (F.avg_pool2d(seen_F3HW, 2).transpose(0, 1) + 1)
