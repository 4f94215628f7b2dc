"""Fit the sync expert that ships (`LinearSync`) by canonical correlations, and measure it on clips held out.

    python tools/fit_sync_expert.py runs/talking.parquet runs/synthetic.parquet --strangers runs/strangers.parquet \
        --crops runs/syncnet/crops --out weights/sync-expert

The header of recipes/syncnet.yaml tells how the manifests are made. All manifests of the first kind weigh the same; a
tenth of their files, by hash, and all of the second kind are held out. Every clip is seen in a mirror too.
"""

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from skyreels_audio.models.sync_expert import LinearSync, windows_of
from skyreels_audio.models.syncnet import WINDOW
from skyreels_audio.training.manifest import read_manifest
from skyreels_audio.training.sync import Example, accuracy, load_example

RIDGE = 0.1  # of unit variance, added to both sides


def load(expert: LinearSync, manifest: Path, crops: Path, held_out: bool) -> list[Example]:
    found = (load_example(row, expert, crops, manifest.stem) for row in read_manifest(manifest))
    clips = [clip for clip in found if clip is not None and len(clip.pictures) >= 2 * WINDOW]
    return [replace(clip, held_out=True) for clip in clips] if held_out else clips


@torch.no_grad()
def fit(expert: LinearSync, clips: list[Example], components: int) -> Tensor:
    """Set both maps; returns the canonical correlations, of which the largest are kept."""
    seen = [(_mouths(expert, clip), _sounds(expert, clip)) for clip in clips]
    left, top, right, bottom = expert.config.box
    shape = (bottom - top) // expert.config.pool, (right - left) // expert.config.pool
    flat = torch.cat([mouths for mouths, _ in seen[::3]])
    flat = torch.cat([flat, _mirrored(flat, shape)])
    variance, axes = torch.linalg.eigh(flat.T @ flat / len(flat))
    basis_CP = axes[:, -components:] / variance[-components:].sqrt()
    std = torch.cat([sounds for _, sounds in seen]).std(0)
    counts, moments = Counter(clip.manifest for clip in clips), [torch.zeros(()).double() for _ in range(3)]
    for clip, (mouths, sounds) in zip(clips, seen, strict=True):
        b = windows_of((sounds / std)[None])[0]
        weight = 0.5 / (counts[clip.manifest] * len(counts) * len(b))
        for view in (mouths, _mirrored(mouths, shape)):
            a = windows_of((view @ basis_CP)[None])[0]
            for index, product in enumerate((a.T @ a, b.T @ b, a.T @ b)):
                moments[index] = moments[index] + weight * product
    white_a, white_b = (_white(moment) for moment in moments[:2])
    u, correlations, vh = torch.linalg.svd(white_a.T @ moments[2] @ white_b)
    kept = slice(expert.config.embedding)
    by_lips, by_sound = white_a @ u[:, kept] * correlations[kept], white_b @ vh[kept].T * correlations[kept]
    lips = torch.einsum("cp,tpk->ktc", basis_CP, by_lips.unflatten(0, (WINDOW, -1)))
    expert.lips.weight.copy_(lips.flatten(1))
    expert.sound.weight.copy_((by_sound.unflatten(0, (WINDOW, -1)) / std[:, None]).flatten(0, 1).T)
    return correlations[kept]


def _mouths(expert: LinearSync, clip: Example) -> Tensor:
    pictures = torch.from_numpy(clip.pictures.astype("float32")).permute(3, 0, 1, 2)[None]
    return expert.mouths(expert.grey(pictures))[0].double()


def _sounds(expert: LinearSync, clip: Example) -> Tensor:
    return expert.sounds(torch.from_numpy(clip.coefficients)[None])[0].double()


def _mirrored(mouths_FC: Tensor, shape: tuple[int, int]) -> Tensor:
    return mouths_FC.unflatten(1, shape).flip(-1).flatten(1)


def _white(covariance: Tensor) -> Tensor:
    variance, axes = torch.linalg.eigh(covariance + RIDGE * torch.eye(len(covariance)))
    return axes / variance.sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--strangers", nargs="*", type=Path, default=[])
    parser.add_argument("--crops", type=Path, required=True, help="where cropped clips are kept")
    parser.add_argument("--embedding", type=int, default=12, help="canonical pairs that are kept")
    parser.add_argument("--components", type=int, default=40, help="of a mouth's picture")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    expert = LinearSync(embedding=given.embedding)
    clips = [clip for path in given.manifests for clip in load(expert, path, given.crops, held_out=False)]
    clips += [clip for path in given.strangers for clip in load(expert, path, given.crops, held_out=True)]
    correlations = fit(expert, [clip for clip in clips if not clip.held_out], given.components)
    print("canonical correlations:", *(f"{r:.2f}" for r in correlations))
    held_out = [clip for clip in clips if clip.held_out]
    print("held out:", dict(Counter(clip.manifest for clip in held_out)))
    print(json.dumps(accuracy(expert, held_out, 0, torch.device("cpu")), indent=1))
    expert.save_pretrained(given.out)


if __name__ == "__main__":
    main()
