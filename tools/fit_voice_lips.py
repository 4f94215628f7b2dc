"""Fit the linear map from mel spectra to lip curves that curation's offline synchrony uses.

    python tools/fit_voice_lips.py FOLDER… --out src/skyreels_audio/curation/assets/voice_lips.npy

The folders hold synchronous videos of one speaker each. Ridge regression, all folders weighing the same.
"""

import argparse
from pathlib import Path

import numpy as np

from skyreels_audio.curation.footage import Source, footage
from skyreels_audio.curation.portrait import Portrait
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.sources import Probe
from skyreels_audio.curation.synchrony import lip_motion, voice_features

RIDGE = 30.0  # times the number of features over that of frames: how much the weights are held down


def examples(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Features [F, X] and standardised lip curves [F, C] of one synchronous video; None without a face."""
    clip = Clip(path.stem, str(path))
    with Source(clip.source):
        clip = Portrait()(Probe()(clip))
        lips_FC = lip_motion(clip)
        if lips_FC is None:
            return None
        return voice_features(footage(clip).sound_n, len(lips_FC)), (lips_FC - lips_FC.mean(0)) / (
            lips_FC.std(0) + 1e-9
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    gram, cross = 0.0, 0.0
    for folder in given.folders:
        paths = sorted(folder.glob("*.mp4"))
        found = [each for each in map(examples, paths) if each is not None]
        x_FX, y_FC = (np.concatenate(part) for part in zip(*found, strict=True))
        print(f"{folder}: {len(found)} videos, {len(x_FX)} frames", flush=True)
        gram, cross = gram + x_FX.T @ x_FX / len(x_FX), cross + x_FX.T @ y_FC / len(x_FX)
    assert isinstance(gram, np.ndarray)
    weights_XC = np.linalg.solve(gram + RIDGE * len(gram) / 1e5 * np.trace(gram) / len(gram) * np.eye(len(gram)), cross)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    np.save(given.out, weights_XC.astype(np.float16))


if __name__ == "__main__":
    main()
