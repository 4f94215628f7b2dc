"""How windows of time meet (the paper's Figure 7): jumps at their borders, and how far the person drifts.

    python benchmarks/fusion.py --model weights/tiny [--seconds 300]

One picture, one voice repeated to length, one seed; bidirectional, unidirectional and no fusion. Prints a table and
writes docs/results/fusion.json and fusion.md. Modes already measured are remembered in --work.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from model_picture import cut_portrait
from table import Row, plain, write
from workbench import Workbench

from skyreels_audio import faces
from skyreels_audio.evaluation.identity import identity_distances
from skyreels_audio.generation.settings import Settings
from skyreels_audio.generation.windows import Fusion, fusion_weights, plan_windows
from skyreels_audio.media import read_audio, read_image

ROOT = Path(__file__).parents[1]
MODES: tuple[Fusion, ...] = ("bidirectional", "unidirectional", "none")
ENDS = 5.0  # seconds at either end between which drift is measured
LOOKS = 10  # frames looked at in each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "tiny", help="checkpoint folder")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--image", type=Path, default=ROOT / "examples" / "portrait.jpg")
    parser.add_argument("--voice", type=Path, default=ROOT / "examples" / "voice.wav")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench-fusion", help="where modes are remembered")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()

    bench = Workbench(options.model, options.work, False, None, options.image.parent)
    picture = read_image(options.image)
    image, _ = cut_portrait(picture, faces.detect_faces(picture)[0], bench.size)
    waveform = np.resize(read_audio(options.voice), round(options.seconds * 16000))
    rows: list[Row] = []
    for mode in MODES:
        name = f"{mode}-{options.seconds:g}s-{options.image.stem}-{options.voice.stem}"
        rows += _rows(mode, bench.cases(name, lambda mode=mode: _measure(bench, image, waveform, mode)))
    print(plain(rows))
    about = {"model": options.model.name, "date": time.strftime("%Y-%m-%d"), "seconds": options.seconds}
    write(options.output, "fusion", "How windows of time meet", rows, about)


def transitions(latents: int, settings: Settings, mode: Fusion) -> list[list[int]]:
    """For each border between windows, the latents at which the share of the later window rises."""
    overlap = 0 if mode == "none" else settings.overlap
    spans = plan_windows(latents, settings.window, overlap)
    borders = []
    for (start, _), weight_T in zip(spans[1:], fusion_weights(spans, mode)[1:], strict=True):
        rises = np.flatnonzero(np.diff(weight_T.numpy(), prepend=0.0) > 1e-6)
        borders.append([start + int(rise) for rise in rises])
    return borders


def _measure(bench: Workbench, image: np.ndarray, waveform: np.ndarray, mode: Fusion) -> dict:
    """Mean absolute difference of every frame to the one before it, and the identity at both ends."""
    output = bench.pipe(image, waveform, fusion=mode, generator=torch.Generator().manual_seed(0))
    ends = int(min(ENDS * output.fps, output.num_frames / 2))
    looks = {*np.linspace(0, ends - 1, LOOKS, dtype=int), *np.linspace(1, ends, LOOKS, dtype=int) * -1}
    kept, differences, before = {}, [], None
    for index, frame in enumerate(output.frames):
        if before is not None:
            differences.append(float(np.abs(frame.astype(np.int16) - before).mean()))
        before = frame.astype(np.int16)
        for look in looks & {index, index - output.num_frames}:
            kept[look] = frame
    borders = transitions(-(-(output.num_frames - 1) // 4) + 1, bench.settings, mode)
    first, last = ([frame for look, frame in kept.items() if (look < 0) == late] for late in (False, True))
    return {
        "differences": differences,
        "borders": borders,
        "distance_first": _distance(image, first),
        "distance_last": _distance(image, last),
    }


def _distance(image: np.ndarray, frames: list[np.ndarray]) -> float | None:
    """Of the person in the frames to the one in the picture; None without faces or without the networks."""
    try:
        distances = identity_distances(image, frames)
    except ImportError:
        return None
    return float(distances.mean()) if len(distances) else None


def _rows(mode: Fusion, measured: dict) -> list[Row]:
    """Latents change every fourth frame, so frames that begin a latent are compared with their like alone."""
    differences = np.array(measured["differences"])
    begins = differences[0::4]  # of latents 1, 2, …: frame 4i - 3 against the one before it
    at_borders = [
        [begins[latent - 1] for latent in border if latent - 1 < len(begins)] for border in measured["borders"]
    ]
    inside = {latent for border in measured["borders"] for latent in border}
    elsewhere = np.median([value for latent, value in enumerate(begins, start=1) if latent not in inside])
    jumps = np.array([np.mean(border) for border in at_borders if border]) / elsewhere
    note = f"{len(jumps)} borders; difference to the frame before over the median elsewhere"
    rows = []
    if len(jumps):
        bar = ("≤", 1.1) if mode == "bidirectional" else None
        rows.append(Row(f"{mode}: jump at borders, median", float(np.median(jumps)), bar, note=note))
        rows.append(Row(f"{mode}: jump at borders, largest", float(jumps.max()), note=note))
    for end in ("first", "last"):
        note = f"dlib's network, mean of {LOOKS} frames within {ENDS:g} s; one person: < 0.6"
        rows.append(Row(f"{mode}: distance to the reference, {end} {ENDS:g} s", measured[f"distance_{end}"], note=note))
    return rows


if __name__ == "__main__":
    main()
