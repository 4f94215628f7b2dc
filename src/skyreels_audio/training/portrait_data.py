"""Drawn portraits on disk for the training of their autoencoder: pictures, their latents in TAEF2, and codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.models import taef2
from skyreels_audio.synthetic.portraits import draw_portrait, sample_portrait

SHARD = 32  # portraits


@dataclass(frozen=True)
class Batch:
    codes_BC: Tensor  # float32
    latents_BCHW: Tensor  # float32, of TAEF2
    pictures_B3HW: Tensor  # float32, 0 to 1
    keys: tuple[tuple[str, int], ...]  # of each portrait: split and number


def portrait_seed(number: int, split: str) -> int:
    """Odd seeds are portraits of training, even seeds are held out."""
    return 2 * number + (split == "train")


class PortraitFolder:
    """``count`` portraits of a split; what is missing in the folder is drawn first, shard by shard."""

    def __init__(self, split: str, count: int, folder: Path, size: int, encoder: Path) -> None:
        from tqdm import tqdm

        self.split = split
        paths = [folder / split / f"shard-{i:05d}.npz" for i in range(-(-count // SHARD))]
        missing = [i for i, path in enumerate(paths) if not path.exists()]
        if missing:
            (folder / split).mkdir(parents=True, exist_ok=True)
            factory = _Factory(size, encoder)
            for i in tqdm(missing, desc=f"{split} portraits, shards of {SHARD}"):
                factory.shard(paths[i], [portrait_seed(n, split) for n in range(i * SHARD, (i + 1) * SHARD)])
        shards = [dict(np.load(path)) for path in paths]
        parts = (np.concatenate([s[name] for s in shards])[:count] for name in ("codes", "latents", "pictures"))
        self.codes, self.latents, self.pictures = parts

    def batch(self, rows: Sequence[int]) -> Batch:
        rows = list(rows)
        codes, latents, pictures = (
            torch.from_numpy(part[rows]).float() for part in (self.codes, self.latents, self.pictures)
        )
        keys = tuple((self.split, row) for row in rows)
        return Batch(codes, latents, pictures.permute(0, 3, 1, 2) / 255, keys)

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        return self.batch(torch.randint(len(self.codes), (count,), generator=generator).tolist())


class _Factory:
    """Draws and encodes one shard after another."""

    def __init__(self, size: int, encoder: Path) -> None:
        from skyreels_audio.synthetic.render import Renderer

        self.renderer = Renderer(size)
        self.encoder = taef2.load(taef2.encoder(), encoder)

    @torch.no_grad()
    def shard(self, path: Path, seeds: list[int]) -> None:
        portraits = [sample_portrait(seed) for seed in seeds]
        pictures = np.stack([draw_portrait(self.renderer, portrait) for portrait in portraits])
        pixels = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast("cpu", torch.bfloat16):
            latents = torch.cat([self.encoder(part) for part in pixels.split(8)])
        codes = np.stack([portrait.code_C for portrait in portraits])
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, codes=codes, latents=latents.half().numpy(), pictures=pictures)
        partial.rename(path)
