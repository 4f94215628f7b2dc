"""Training of the painter of portraits: maps of a drawn person → TAEF2's latents of the drawn picture, then pixels."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skyreels_audio.models import taef2
from skyreels_audio.models.portrait_autoencoder import PortraitAutoencoder
from skyreels_audio.synthetic.portrait_mesh import fit_mesh
from skyreels_audio.training.motion.decoder import differences, psnr, sharpness
from skyreels_audio.training.motion.recipe import PortraitAutoencoderRecipe
from skyreels_audio.training.portrait_data import Batch, PortraitFolder

LEAST = 0.05  # deviation that a channel of the code is normalised by at least
PERSON = 2.0  # weight of a latent that shows the person, over one that shows the wall
SHOWN = 8  # held-out portraits whose pixels are looked at


class PortraitAutoencoderTask:
    """Absolute and squared errors of latents; from ``pixels_from`` on, of pixels and edges."""

    def __init__(self, recipe: PortraitAutoencoderRecipe, device: torch.device) -> None:
        self.recipe, self.device, data = recipe, device, recipe.data
        source = data.folder, data.size, data.taef2 / "encoder.safetensors"
        self.held_out = PortraitFolder("test", data.held_out, *source)
        self.train = PortraitFolder("train", data.portraits, *source)
        vae: Any = self._start() if recipe.initial is None else PortraitAutoencoder.from_pretrained(recipe.initial)
        vae = vae.float().to(device, memory_format=torch.channels_last)
        self.modules = nn.ModuleDict({"vae": vae})
        self.maps: dict[tuple[str, int], Tensor] = {}

    def _start(self) -> PortraitAutoencoder:
        mesh, codes_RC = fit_mesh(), torch.from_numpy(self.train.codes)
        vae = PortraitAutoencoder(
            vertices=len(mesh["traits_VK"]),
            triangles=len(mesh["level_F"]),
            scale_factor_spatial=self.recipe.data.size,
            latents_mean=codes_RC.mean(0).tolist(),
            latents_std=codes_RC.std(0).clamp(min=LEAST).tolist(),
            **self.recipe.model,
        )
        vae.geometry.load_state_dict(mesh)
        taef2.load(vae.painter, self.recipe.data.taef2 / "decoder.safetensors")
        return vae

    def _maps(self, batch: Batch) -> Tensor:
        """Maps of the batch's codes; drawn once per portrait and kept."""
        vae: Any = self.modules["vae"]
        for row, key in enumerate(batch.keys):
            if key not in self.maps:
                self.maps[key] = vae.maps(batch.codes_BC[row : row + 1])[0].half()
        return torch.stack([self.maps[key].float() for key in batch.keys]).to(self.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        pixels = step >= self.recipe.pixels_from
        count = self.recipe.pixel_batch if pixels else self.recipe.optimisation.batch
        batch = self.train.draw(count, generator)
        vae: Any = self.modules["vae"]
        maps_BKHW = self._maps(batch)
        latents = vae.paint(batch.codes_BC.to(self.device), maps_BKHW)
        covered = nn.functional.avg_pool2d(maps_BKHW[:, 3:4], maps_BKHW.shape[-1] // latents.shape[-1])
        weight = 1 + (PERSON - 1) * covered
        losses = {"latents": _error(latents - batch.latents_BCHW.to(self.device), weight)}
        if pixels:
            error = vae.painter(latents.to(vae.painter[1].weight.dtype)) - batch.pictures_B3HW.to(self.device)
            losses = {"pixels": 2 * _error(error, 1.0), "edges": 2 * sum(d.abs().mean() for d in differences(error))}
        return torch.stack(list(losses.values())).sum(), {k: float(v.detach()) for k, v in losses.items()}

    @torch.no_grad()
    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        vae: Any = averaged["vae"]
        batch = self.held_out.batch(range(self.recipe.data.held_out))
        latents = vae.paint(batch.codes_BC.to(self.device), self._maps(batch)).float().cpu()
        made = vae.painter(latents[:SHOWN].to(self.device)).float().cpu().clamp(0, 1)
        true = batch.pictures_B3HW[:SHOWN]
        return {
            "held_out/latents": float((latents - batch.latents_BCHW).square().mean().sqrt()),
            "held_out/psnr": psnr(2 * made - 1, 2 * true - 1),
            "held_out/sharpness": sharpness(made) / sharpness(true),
        }

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        vae: Any = averaged["vae"]
        vae.half().save_pretrained(folder / "portrait_vae")


def _error(error: Tensor, weight: Tensor | float) -> Tensor:
    return (weight * (error.abs() + error.square())).mean()
