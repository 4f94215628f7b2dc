"""Training of the small autoencoder: a closed-form analysis, then a synthesis learned by mean squared error."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from skyreels_audio import media
from skyreels_audio.models.autoencoder import FRAMES, PIXELS, CausalVideoAutoencoder, blocks_of, fit_klt
from skyreels_audio.training.recipe import AutoencoderRecipe

log = logging.getLogger(__name__)
VIDEO_TYPES = {".mp4", ".mov", ".mkv", ".webm"}
IMAGE_TYPES = {".jpg", ".jpeg", ".png", ".webp"}


def held_out(name: str) -> bool:
    """A tenth of the files, by a hash that no later change of the folder can shift."""
    import zlib

    return zlib.crc32(name.encode()) % 10 == 0


def files_of(folder: Path, types: set[str], test: bool) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in types and held_out(p.name) == test)


def video_clip(path: Path, frames: int, size: int, rng: np.random.Generator) -> np.ndarray | None:
    """``frames`` consecutive frames from anywhere in a video, uint8 [F, size, size, 3]; None if it is too short."""
    everything = list(media.read_video(path))
    if len(everything) < frames:
        return None
    start = int(rng.integers(len(everything) - frames + 1))
    return np.stack([fit_square(frame, size) for frame in everything[start : start + frames]])


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
    """Centre square of an image at ``size`` pixels."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return (
        square if side == size else np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.LANCZOS))
    )


def photograph_clip(path: Path, frames: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A photograph as a clip: half of them hold still, half drift and zoom by a few pixels."""
    image = Image.fromarray(media.read_image(path))
    side = min(image.size) * rng.uniform(0.6, 1.0)
    corner = np.array([rng.uniform(0, image.size[0] - side), rng.uniform(0, image.size[1] - side)])
    drift = rng.normal(size=2) * side * 0.004 * (rng.random() < 0.5)
    boxes = [np.concatenate([corner + drift * k, corner + drift * k + side]) for k in range(frames)]
    moved = [image.resize((size, size), Image.Resampling.BICUBIC, box=tuple(_inside(b, image.size))) for b in boxes]
    return np.stack([np.asarray(m) for m in moved])


def _inside(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    limits = np.array([*size, *size], float)
    return np.clip(box, 0, limits)


def clips_of(recipe: AutoencoderRecipe, test: bool, count: int) -> Iterator[np.ndarray]:
    """Clips of all sources, every folder of videos and all photographs with equal weight."""
    rng = np.random.default_rng([recipe.seed, int(test)])
    sources = [files_of(folder, VIDEO_TYPES, test) for folder in recipe.videos]
    if recipe.images:
        sources.append([p for folder in recipe.images for p in files_of(folder, IMAGE_TYPES, test)])
    sources = [source for source in sources if source]
    if not sources:
        raise media.InputError(f"no videos or images under {', '.join(map(str, [*recipe.videos, *recipe.images]))}.")
    produced = 0
    while produced < count:
        source = sources[produced % len(sources)]
        path = source[int(rng.integers(len(source)))]
        if path.suffix.lower() in IMAGE_TYPES:
            clip = photograph_clip(path, recipe.frames, recipe.size, rng)
        else:
            clip = video_clip(path, recipe.frames, recipe.size, rng)
        if clip is not None:
            produced += 1
            yield clip


def as_video(clip: np.ndarray) -> Tensor:
    """uint8 [F, H, W, 3] → float [3, F, H, W] in [-1, 1]."""
    return torch.from_numpy(clip).permute(3, 0, 1, 2).float() / 127.5 - 1


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of videos in [-1, 1]."""
    return float(10 * torch.log10(4 / (a.float() - b.float()).square().mean().clamp(min=1e-10)))


class AutoencoderTask:
    """Random crops of clips held in memory; mean squared error, on latents a little noisy half of the time."""

    def __init__(self, recipe: AutoencoderRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        log.info("reading %d clips", recipe.clips)
        cache = recipe.output / "clips.npy"
        if cache.exists():
            self.clips = np.load(cache, mmap_mode="r")
        else:
            self.clips = np.stack(list(clips_of(recipe, test=False, count=recipe.clips)))
            recipe.output.mkdir(parents=True, exist_ok=True)
            np.save(cache.with_name("partial.npy"), self.clips)
            cache.with_name("partial.npy").rename(cache)
        self.test = list(clips_of(recipe, test=True, count=24))
        if recipe.initial is None:
            model: Any = CausalVideoAutoencoder(**recipe.model)
            self._fit_analysis(model)
        else:
            model = CausalVideoAutoencoder.from_pretrained(recipe.initial)
        self.modules = nn.ModuleDict({"vae": model.to(device)})

    @torch.no_grad()
    def _fit_analysis(self, model: Any) -> None:
        rng = np.random.default_rng(self.recipe.seed)
        chosen = rng.permutation(len(self.clips))[:600]
        blocks = torch.cat([blocks_of(as_video(self.clips[i][1 : 1 + FRAMES])) for i in chosen])
        mean, basis, std = fit_klt(blocks, model.config.z_dim)
        model.mean_block.copy_(mean)
        model.basis.copy_(basis)
        # Halfway between whitened (all coefficients equally loud) and orthonormal (latent error = pixel error): coarse
        # coefficients stay above fine ones, so that noise takes the fine ones first, as it does in pixels.
        scale = (std * std.log().mean().exp()).sqrt()
        model.register_to_config(
            latents_mean=[0.0] * model.config.z_dim, latents_std=[round(s, 5) for s in scale.tolist()]
        )

    def batch(self, step: int) -> Tensor:
        rng = np.random.default_rng([self.recipe.seed, 1, step])
        crop, size = self.recipe.crop, self.recipe.size
        videos = []
        for index in rng.integers(len(self.clips), size=self.recipe.optimisation.batch):
            top, left = rng.integers(0, (size - crop) // PIXELS + 1, size=2) * PIXELS
            # Cuts that are not aligned with the block grid of the source show the synthesis every phase of an edge.
            top, left = np.clip([top + rng.integers(-8, 9), left + rng.integers(-8, 9)], 0, size - crop)
            clip = as_video(self.clips[index][:, top : top + crop, left : left + crop])
            videos.append(clip.flip(-1) if rng.random() < 0.5 else clip)
        return torch.stack(videos).to(self.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        model: Any = self.modules["vae"]
        video = self.batch(step)
        generator = torch.Generator(self.device).manual_seed(self.recipe.seed + step)
        with torch.no_grad():
            latents = model.encode(video).latent_dist.mode().float()
            std = torch.tensor(model.config.latents_std, device=self.device).view(1, -1, 1, 1, 1)
            amount = self.recipe.latent_noise * torch.rand(
                len(video), 1, 1, 1, 1, generator=generator, device=self.device
            )
            noise = torch.randn(latents.shape, generator=generator, device=self.device)
            noisy = latents + noise * std * amount * (amount > self.recipe.latent_noise / 2)
        difference = model.decode(noisy).sample - video
        return difference.square().mean(), {
            "psnr": float(10 * torch.log10(4 / difference.detach().float().square().mean()))
        }

    @torch.no_grad()
    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        model: Any = averaged["vae"]
        values = []
        for clip in self.test:
            video = as_video(clip)[None].to(self.device)
            values.append(psnr(model.decode(model.encode(video).latent_dist.mode()).sample, video))
        kinds = len(self.recipe.videos) + bool(self.recipe.images)
        return {f"held_out_psnr/{k}": float(np.mean(values[k::kinds])) for k in range(kinds)}

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        model: Any = averaged["vae"]
        model.save_pretrained(folder)
