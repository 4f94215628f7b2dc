"""Training of our own sync expert: windows of lips and of sound that belong together, among many that do not.

Of a few clips, several windows of each: every window of lips has to pick its sound out of all others of the batch
(InfoNCE, van den Oord et al. 2018). Some of them are of the same clip, so voice and face give nothing away. They stand
apart in time: neighbouring frames share four of five, and to tell these apart is too hard to begin with.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skyreels_audio import media
from skyreels_audio.media import SAMPLE_RATE, InputError
from skyreels_audio.models.syncnet import MFCC_PER_FRAME, MFCC_WINDOW, WINDOW, SyncNet, face_crops, mfcc
from skyreels_audio.training.manifest import LABEL_FPS, ManifestRow, read_manifest
from skyreels_audio.training.recipe import SyncRecipe

CROP = 224
OFF_SYNC = 5, 15
"""By how many frames sound is shifted that counts as out of sync."""
SECOND = LABEL_FPS
DRAWS = 8
"""Shifts that each held-out clip is judged with."""
NEIGHBOURS = 1.0
"""Deviation, in frames, of the target around a window's own sound."""


@dataclass(frozen=True)
class Example:
    """A clip as the networks see it: uint8 [F, side, side, 3] on disk, and coefficients [13, 4F]."""

    pictures: np.ndarray
    coefficients: np.ndarray
    held_out: bool
    manifest: str


class SyncTask:
    """InfoNCE on windows of cropped clips, which are kept beside the run."""

    def __init__(self, recipe: SyncRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        model: Any = SyncNet(**recipe.model)
        self.modules = nn.ModuleDict({"syncnet": model.to(device)})
        examples = [
            replace(example, held_out=example.held_out or manifest in recipe.strangers)
            for manifest in (*recipe.manifests, *recipe.strangers)
            for row in read_manifest(manifest)
            if (example := load_example(row, model, recipe.output / "crops", manifest.stem)) is not None
        ]
        self.train = [x for x in examples if not x.held_out and len(x.pictures) >= recipe.windows * WINDOW]
        self.held_out = [x for x in examples if x.held_out and len(x.pictures) >= SECOND + WINDOW + OFF_SYNC[1]]
        if len(self.train) < 2 or not self.held_out:
            raise InputError("A sync expert needs at least two clips to train on, and others that are held out.")

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([self.recipe.seed, step])
        torch.manual_seed(int(rng.integers(2**62)))
        pictures, coefficients = [], []
        for index in rng.permutation(len(self.train))[: self.recipe.optimisation.batch]:
            example = self.train[index]
            for start in self.starts(len(example.pictures), rng):
                pictures.append(np.array(example.pictures[start : start + WINDOW]))
                first = MFCC_PER_FRAME * start
                coefficients.append(example.coefficients[:, first : first + MFCC_WINDOW])
        frames = WINDOW * self.recipe.windows  # of a clip, which is disturbed as a whole
        clips_B3FHW = torch.from_numpy(np.stack(pictures)).float().flatten(0, 1).unflatten(0, (-1, frames))
        windows = disturb(clips_B3FHW.permute(0, 4, 1, 2, 3)).unflatten(2, (-1, WINDOW)).transpose(1, 2).flatten(0, 1)
        sound_BCM = torch.from_numpy(np.stack(coefficients, 1)).unflatten(1, (-1, self.recipe.windows)).transpose(0, 1)
        sound = disturb_sound(sound_BCM.flatten(2)).unflatten(2, (-1, MFCC_WINDOW)).transpose(1, 2).flatten(0, 1)
        model: Any = self.modules["syncnet"]
        lips_ND = F.normalize(model.embed_pictures(windows.to(self.device))[:, 0], dim=-1)
        sound_ND = F.normalize(model.embed_audio(sound.to(self.device))[:, 0], dim=-1)
        logits = lips_ND @ sound_ND.T / self.recipe.temperature
        own = torch.arange(len(logits), device=self.device)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return loss, {"found_in_batch": float((logits.detach().argmax(1) == own).float().mean())}

    def starts(self, frames: int, rng: np.random.Generator) -> np.ndarray:
        """First frames of a clip's windows, evenly apart, the distance and the first one by chance."""
        most = (frames - WINDOW) / max(self.recipe.windows - 1, 1)
        apart = rng.uniform(most / 2, most)
        first = rng.uniform(0, frames - WINDOW - apart * (self.recipe.windows - 1))
        return np.floor(first + apart * np.arange(self.recipe.windows)).astype(int)

    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        model: Any = averaged["syncnet"]
        told = accuracy(model, self.held_out, self.recipe.seed, self.device)
        return {f"held_out/{name}": value for name, value in told.items()}

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        import copy

        copy.deepcopy(averaged["syncnet"]).to("cpu", torch.float16).save_pretrained(folder)  # pyright: ignore[reportCallIssue]


@torch.no_grad()
def accuracy(model: SyncNet, clips: list[Example], seed: int, device: torch.device) -> dict[str, float]:
    """By manifest, of clips in sync: is their sound nearer than sound 5 to 15 frames off, judged by one window and by a
    second of them; and is an offset of up to 10 frames found to ±1 frame."""
    rng, hits = np.random.default_rng(seed), {}
    names = ("pair_accuracy_window", "pair_accuracy_second", "offset_within_1")
    for clip in clips:
        pictures = torch.from_numpy(np.array(clip.pictures)).permute(3, 0, 1, 2)[None].to(device)
        lips_ND = model.embed_pictures(pictures.float())[0]
        sound_ND = model.embed_audio(torch.from_numpy(clip.coefficients)[None].to(device))[0]
        for _ in range(DRAWS):
            for name, hit in zip(names, _judged(model, lips_ND, sound_ND, rng), strict=True):
                hits.setdefault(f"{clip.manifest}/{name}", []).append(hit)
    return {name: float(np.mean(values)) for name, values in hits.items()}


def _judged(model: SyncNet, lips_ND: Tensor, sound_ND: Tensor, rng: np.random.Generator) -> tuple[float, ...]:
    """The share of windows, and of seconds, in which sound in sync is nearer; whether a planted offset is found."""
    count = min(len(lips_ND), len(sound_ND))
    shift = int(rng.integers(OFF_SYNC[0], OFF_SYNC[1] + 1)) * int(rng.choice([-1, 1]))
    place = torch.arange(max(-shift, 0), count - max(shift, 0))
    true = (lips_ND[place] - sound_ND[place]).norm(dim=1)
    off = (lips_ND[place] - sound_ND[place + shift]).norm(dim=1)
    seconds = true.unfold(0, SECOND, 1).mean(1) < off.unfold(0, SECOND, 1).mean(1)
    planted = int(rng.integers(-10, 11))
    first = slice(max(-planted, 0), count - max(planted, 0))
    later = slice(max(planted, 0), count - max(-planted, 0))
    found = model.compare(lips_ND[first], sound_ND[later]).offset + planted
    return float((true < off).float().mean()), float(seconds.float().mean()), float(abs(found) <= 1)


def load_example(row: ManifestRow, model: SyncNet, folder: Path, manifest: str) -> Example | None:
    """The clip, cropped once and kept under ``folder``; None if it has no face or cannot be read."""
    side, region = model.config.side, "-".join(f"{100 * share:.0f}" for share in model.config.region)
    path = folder / f"{side}-{region}" / f"{row.key}.npy"
    if not path.exists():
        if row.face_boxes_F4 is None:
            return None
        first = round(row.start * LABEL_FPS)
        try:
            frames = list(media.read_video(row.path, LABEL_FPS))[first : first + len(row.face_boxes_F4)]
            audio = media.read_audio(row.path)[round(row.start * SAMPLE_RATE) : round(row.end * SAMPLE_RATE)]
            crops = face_crops(frames, row.face_boxes_F4[: len(frames)], CROP)
        except ValueError:
            return None
        pictures = model.crop(torch.from_numpy(crops)[None])[0].round().clamp(0, 255).to(torch.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path.with_suffix(".sound.npy"), mfcc(audio))
        with (partial := path.with_suffix(".partial")).open("wb") as file:
            np.save(file, pictures.permute(1, 2, 3, 0).numpy())
        partial.rename(path)
    pictures, coefficients = np.load(path, mmap_mode="r"), np.load(path.with_suffix(".sound.npy"))
    frames = min(len(pictures), coefficients.shape[1] // MFCC_PER_FRAME)
    held_out = int(row.hash[:8], 16) % 10 == 0
    return Example(pictures[:frames], coefficients[:, : MFCC_PER_FRAME * frames], held_out, manifest)


def disturb(pictures_B3FHW: Tensor) -> Tensor:
    """Mirror, move, scale and turn each clip as a whole, change its light and colour, blur it, add noise."""
    count, _, frames, height, width = pictures_B3FHW.shape
    angle, zoom = 0.1 * torch.randn(count), 1 + 0.08 * torch.randn(count)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([mirror * zoom * angle.cos(), -zoom * angle.sin(), 0.06 * torch.randn(count)], -1),
        torch.stack([mirror * zoom * angle.sin(), zoom * angle.cos(), 0.06 * torch.randn(count)], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [count, 3, height, width], align_corners=False)
    flat = pictures_B3FHW.flatten(1, 2)
    moved = F.grid_sample(flat, grid, padding_mode="border", align_corners=False).unflatten(1, (3, frames))
    grey = moved.mean(1, keepdim=True)
    moved = grey + (moved - grey) * torch.rand(count, 1, 1, 1, 1) * 1.3
    moved = moved * (1 + 0.2 * torch.randn(count, 1, 1, 1, 1)) + 12 * torch.randn(count, 3, 1, 1, 1)
    if (factor := (1, 1, 2, 3)[int(torch.randint(4, ()))]) > 1:
        small = F.avg_pool3d(moved, (1, factor, factor))
        moved = F.interpolate(small, (frames, height, width), mode="trilinear")
    return (moved + 5 * torch.rand(count, 1, 1, 1, 1) * torch.randn_like(moved)).clamp(0, 255)


def disturb_sound(mfcc_BCM: Tensor) -> Tensor:
    """Another loudness, another microphone (each coefficient is off by a constant), some noise."""
    count, coefficients, _ = mfcc_BCM.shape
    colour = 1.5 * torch.randn(count, coefficients, 1)
    return mfcc_BCM + colour + 0.7 * torch.rand(count, 1, 1) * torch.randn_like(mfcc_BCM)
