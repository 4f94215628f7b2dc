"""Fit the two outputs of a motion decoder that say where a picture's own upper teeth are; all others stay as they are.

    python tools/fit_own_teeth.py weights/tiny/vae runs/pairs/train --out runs/own-teeth [--steps 2000]

So were those of the sixth weights/tiny made: training the whole decoder with them cost the dark of open mouths.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import trange

from skyreels_audio.models.motion_autoencoder import OUTPUTS, MotionAutoencoder
from skyreels_audio.training.motion.augment import augment
from skyreels_audio.training.motion.decoder import PairFolder, wrong_share

NEW = 2  # outputs, the last ones
BATCH, LEARNING_RATE = 8, 1e-2
BARED = 6.0  # weight of pixels on which the source shows teeth, over that of others, which are many


def open_outputs(vae: Any) -> list[Tensor]:
    """The weights of the last layers, of which only the new outputs' rows, now zero, have a gradient."""
    vae.requires_grad_(False)
    opened = []
    for layer in (*vae.decoder.coarse, vae.decoder.fine):
        first = (OUTPUTS - NEW) * (len(layer.bias) // OUTPUTS)  # the finest layer has four rows an output
        for weights in (layer.weight, layer.bias):
            weights[first:] = 0
            rows = (torch.arange(len(weights)) >= first).to(weights.dtype).view(-1, *[1] * (weights.ndim - 1))
            weights.requires_grad_(True).register_hook(lambda gradient, rows=rows: gradient * rows)
            opened.append(weights)
    return opened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoder", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    given = parser.parse_args()
    vae: Any = MotionAutoencoder.from_pretrained(given.decoder, torch_dtype=torch.float32)
    vae.to(memory_format=torch.channels_last)
    clips, generator = PairFolder(given.pairs), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(open_outputs(vae), LEARNING_RATE)  # without decay, which would move the others
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.steps)
    mouth, eyes = slice(*vae.config.mouth), slice(*vae.config.eyes)
    for step in (progress := trange(given.steps)):
        rows = (mouth, mouth, eyes, slice(None))[step % 4]
        batch = augment(clips.draw(BATCH, generator), generator).rows(rows)
        motion = vae.move(batch.codes_BN, vae.read_source(batch.source_B3HW, rows))
        weight = 1 + BARED * batch.bared_B1HW
        own, bared = wrong_share(motion.own_B1HW, batch.own_B1HW), wrong_share(motion.bared_B1HW, batch.bared_B1HW)
        loss = (weight * (own + bared)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        progress.set_postfix(loss=f"{float(loss.detach()):.4f}")
    vae.register_to_config(_name_or_path="")  # not where it came from on this machine
    vae.half().save_pretrained(given.out)


if __name__ == "__main__":
    main()
