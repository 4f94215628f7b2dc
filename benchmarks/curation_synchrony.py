"""Synchrony on many faults from one scoring of a pool: limits chosen on half A, measured on half B.

    python benchmarks/curation_synchrony.py --work pool     # after benchmarks/curation.py --half A and --half B

Landmarks and pictures are those of the pool's clean and shifted clips; only their sound is moved, made to wander, or
exchanged with that of other clips, nine sounds for each. So every clip counts often, and clips are few.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from curation import ROOT
from curation_pool import SHIFTS, Truth, fit_sound, late, wandering

from skyreels_audio.curation.footage import FPS, RATE, Source, footage
from skyreels_audio.curation.recipe import Recipe, read_recipe
from skyreels_audio.curation.schema import COLUMNS, Clip
from skyreels_audio.curation.select import read_rows
from skyreels_audio.curation.storage import Folder
from skyreels_audio.curation.synchrony import Synchrony

MOST = 9  # frames of a planted shift beyond which too little sound is left to move it back


def bases(work: Path, half: str) -> list[tuple[Clip, np.ndarray, bool]]:
    """Clips whose lips were followed, their sound in sync, and whether they are footage."""
    truths = {t.file: t for t in (Truth(**each) for each in json.loads((work / "pool" / "truth.json").read_text()))}
    found = []
    for clip in read_rows(Folder(work / f"rows-{half}"), COLUMNS):
        truth = truths[Path(clip.source).name]
        shift = 0 if truth.fault == "clean" else int(truth.value or 0) if truth.fault == "shift" else MOST + 1
        if abs(shift) > MOST or clip.landmarks is None or not clip.has_audio:
            continue
        with Source(clip.source):
            found.append((clip, late(footage(clip).sound_n, -shift), truth.real))
    return found


def planted(clips: list[tuple[Clip, np.ndarray, bool]], number: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """Kind, frames and sound for one of the clips."""
    clip, sound_n, real = clips[number]
    rng = np.random.default_rng([3, number])
    yield "in sync", 0, sound_n
    for frames in rng.choice(SHIFTS, 2, replace=False):
        yield "shift", int(frames), late(sound_n, int(frames))
    for frames in rng.integers(8, 13, 3):
        yield "wander", int(frames), wandering(sound_n, int(frames))
    others = [each for each in clips if each[2] != real] or [each for each in clips if each[0] is not clip]
    for index in rng.choice(len(others), 3, replace=len(others) < 3):
        yield "dubbed", 0, fit_sound(others[index][1], round(len(sound_n) * FPS / RATE))


def measure(clips: list[tuple[Clip, np.ndarray, bool]], stage: Synchrony, recipe: Recipe) -> dict[str, np.ndarray]:
    """Kind → rows of: rejected, rejected because the offset wanders, offset right within a frame."""
    table: dict[str, list[tuple[bool, bool, bool]]] = {}
    for number, (clip, _, _) in enumerate(clips):
        with Source(clip.source):
            for kind, frames, sound_n in planted(clips, number):
                footage(clip).sound_n = sound_n
                said = stage(clip)
                reasons = recipe.failures(said, "synchrony")
                near = said.sync_offset is not None and abs(said.sync_offset - frames) <= 1
                wanders = "synchrony.sync_wander" in reasons
                table.setdefault(kind, []).append((bool(reasons), wanders, near))
    return {kind: np.array(rows) for kind, rows in table.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    recipe = read_recipe(ROOT / "recipes" / "curate.yaml")
    stage = Synchrony()
    stage.setup()
    print(f"{'':10}{'half':5}{'clips':>6}{'times':>6}{'rejected':>9}{'wander':>8}{'offset ±1':>10}")
    for half in "AB":
        clips = bases(given.work, half)
        for kind, rows in measure(clips, stage, recipe).items():
            rejected, wanders, near = rows.mean(axis=0)
            told = f"{near:10.2f}" if kind in ("in sync", "shift") else ""
            print(f"{kind:10}{half:5}{len(clips):6}{len(rows):6}{rejected:9.2f}{wanders:8.2f}{told}", flush=True)


if __name__ == "__main__":
    main()
