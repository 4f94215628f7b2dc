"""What the small model is trained on, made before training: a speech corpus, and clips of pairs of frames.

Clip n of a recipe is always the same, so an interrupted run goes on where it stopped and workers need not talk to each
other; a training may begin on the first clips while the others are being made.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from skyreels_audio.media import InputError
from skyreels_audio.synthetic.bank import SpeechBank, speech_bank
from skyreels_audio.synthetic.pairs import PairFactory
from skyreels_audio.synthetic.photograph import split as split_of
from skyreels_audio.training.motion.recipe import MotionRecipe, SpeechCorpus

HELD_OUT = 16  # one clip in so many is of the test split
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


def speak(speech: SpeechCorpus, seed: int, workers: int) -> None:
    """Make what is missing of a recipe's speech corpus."""
    speech_bank(speech.bank, speech.hours, seed, workers, speech.recordings)


def render_pairs(recipe: MotionRecipe) -> None:
    """Make what is missing of a recipe's clips; with nothing missing it returns at once.

    Raises:
        InputError: the folder of photographs does not exist.
    """
    from tqdm import tqdm

    if recipe.photographs is not None and not recipe.photographs.is_dir():
        raise InputError(f"{recipe.photographs}: no such folder of photographs.")
    speak(recipe.speech, recipe.seed, recipe.workers)
    for split in ("train", "test"):
        (recipe.pairs / split).mkdir(parents=True, exist_ok=True)
    missing = [index for index in range(recipe.clips) if not _written(recipe, index)]
    context = get_context("spawn")  # a fork may wait for ever for a lock that another thread had
    with ProcessPoolExecutor(recipe.workers, context, initializer=_single_thread) as pool:
        list(tqdm(pool.map(partial(write_clip, recipe), missing), total=len(missing), desc="pairs", unit="clip"))


def write_clip(recipe: MotionRecipe, index: int) -> None:
    """One clip, as a file of its own: empty where its photograph does not lend itself."""
    path = _path(recipe, index)
    clip = _factory(recipe.speech.bank, recipe.photographs, recipe.seed, path.parent.name).clip(index)
    if clip is None:
        path.with_suffix(".none").touch()
        return
    partial_path = path.with_suffix(f".{os.getpid()}.partial")
    with partial_path.open("wb") as file:
        np.savez(file, **vars(clip))
    partial_path.rename(path)


def _written(recipe: MotionRecipe, index: int) -> bool:
    path = _path(recipe, index)
    return path.exists() or path.with_suffix(".none").exists()


def _path(recipe: MotionRecipe, index: int) -> Path:
    split = "test" if index % HELD_OUT == HELD_OUT // 2 - 1 else "train"
    return recipe.pairs / split / f"{index:06d}.npz"


@lru_cache(maxsize=2)
def _factory(bank: Path, folder: Path | None, seed: int, split: str) -> PairFactory:
    corpus = SpeechBank(bank, split)
    curves = [corpus[row][1] for row in range(len(corpus))]
    pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES) if folder else []
    return PairFactory(curves, [p for p in pictures if split_of(p.name) == split], seed, split)


def _single_thread() -> None:
    os.environ["LP_NUM_THREADS"] = "1"  # Mesa's rasteriser
