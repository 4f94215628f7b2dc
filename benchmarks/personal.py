"""A LoRA of weights/tiny for one person: minutes it takes, and what it gains on clips it never saw.

    python benchmarks/personal.py --footage data/talking [--clips 32] [--held-out 12]

FOOTAGE is the project's GRID folder: clips whose sentences were held out of everything that weights/tiny was trained on
are measured on, others become the LoRA by recipes/personal-tiny-lora.yaml. Each clip measured on is made from its first
frame and its sound, by default and with the LoRA, and its lips are compared with the true ones. Writes
docs/results/personal.json and personal.md; a run that was interrupted goes on.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from table import Row, plain, write

from skyreels_audio.evaluation.lips import correlation
from skyreels_audio.evaluation.motion import amplitude_ratio, aperture, track_landmarks
from skyreels_audio.evaluation.statistics import mean_estimate
from skyreels_audio.generation.lora import load_loras
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.media import SAMPLE_RATE, read_audio, read_video
from skyreels_audio.synthetic.sentences import is_test
from skyreels_audio.synthetic.voices import grid_sentence
from skyreels_audio.training.folder import Told, index_folder
from skyreels_audio.training.precompute import Precompute, precompute
from skyreels_audio.training.trainer import train

ROOT = Path(__file__).parents[1]
LATENTS = 19  # 73 of a clip's 75 frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footage", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "tiny")
    parser.add_argument("--clips", type=int, default=32, help="of 3 s, for the LoRA")
    parser.add_argument("--held-out", type=int, default=12)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "personal", help="where an interrupted run goes on"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = sorted(options.footage.glob("grid-*.mp4"))
    unseen = [path for path in clips if is_test(grid_sentence(path.stem.split("-")[-1]))]
    seen = [path for path in clips if path not in unseen]
    lora, minutes = make_lora(_spread(seen, options.clips), options.model, options.work)
    measured = compare(_spread(unseen, options.held_out), options.model, lora, options.work / "measured.json")
    rows = [Row("processor minutes, all of the below", sum(minutes.values()), ("≤", 60.0), digits=1)]
    rows += [Row(f"processor minutes: {phase}", value, digits=1) for phase, value in minutes.items()]
    rows += _rows(measured)
    print(plain(rows))
    about = {"model": options.model.name, "date": time.strftime("%Y-%m-%d"), "seconds of own video": 3 * options.clips}
    write(options.output, "personal", "A LoRA for one person", rows, about | {"clips measured on": len(measured)})


def _spread(paths: list[Path], count: int) -> list[Path]:
    return [paths[index] for index in np.linspace(0, len(paths) - 1, min(count, len(paths)), dtype=int)]


def make_lora(clips: list[Path], model: Path, work: Path) -> tuple[Path, dict[str, float]]:
    """The LoRA file, and processor minutes of each phase."""
    videos = work / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        (videos / clip.name).unlink(missing_ok=True)
        (videos / clip.name).symlink_to(clip.resolve())
    job = Precompute(work / "my.parquet", model, work / "shards", ((256, 256),), (LATENTS,), held_out=0.1)
    changes = {"model": str(model), "data": [str(job.out)], "output": str(work / "run")}
    recipe = ROOT / "recipes" / "personal-tiny-lora.yaml"
    phases: dict[str, Callable[[], Any]] = {
        "manifest": lambda: index_folder(videos, job.manifest, Told()),
        "codes of motion": lambda: precompute(job),
        "training": lambda: train(recipe, device="cpu", changes=changes),
    }
    told, minutes = work / "minutes.json", {}
    if told.exists():
        minutes = json.loads(told.read_text())
    for name, phase in phases.items():
        if name not in minutes:
            started = time.process_time()
            print(name, phase(), flush=True)
            minutes[name] = (time.process_time() - started) / 60
            told.write_text(json.dumps(minutes))
    return work / "run" / "export" / "pytorch_lora_weights.safetensors", minutes


def compare(clips: list[Path], model: Path, lora: Path, kept: Path) -> list[dict[str, Any]]:
    """Per clip, by default and with the LoRA: correlation of the lips' aperture with the true one, size, distance."""
    measured = json.loads(kept.read_text()) if kept.exists() else []
    pipes = [SkyReelsAudioPipeline.from_pretrained(model) for _ in range(2)]
    load_loras(pipes[1], [str(lora)])
    for clip in clips[len(measured) :]:
        frames = np.stack(list(read_video(clip)))
        voice_n, true = read_audio(clip)[: round(len(frames) / 25 * SAMPLE_RATE)], aperture(track_landmarks(frames))
        row: dict[str, Any] = {"clip": clip.stem}
        for name, pipe in zip(("default", "lora"), pipes, strict=True):
            pipe.set_progress_bar_config(disable=True)
            made = pipe(frames[0], voice_n, generator=torch.Generator().manual_seed(0)).frames
            curve = aperture(track_landmarks(made))
            count = min(len(curve), len(true))
            curve, aim = curve[:count], true[:count]
            row[name] = [correlation(curve, aim), amplitude_ratio(curve, aim), 100 * float(np.abs(curve - aim).mean())]
        measured.append(row)
        print(row, flush=True)
        kept.write_text(json.dumps(measured))
    return measured


FIGURES = {
    "aperture of the lips, r to the true clip's": "",
    "its size over the true one's": "",
    "its distance to the true one, of the face's height": " %",
}


def _rows(measured: list[dict[str, Any]]) -> list[Row]:
    """Means over clips; the gain of a size is how much nearer to 1 it is, as a factor."""
    rows = []
    for column, (what, unit) in enumerate(FIGURES.items()):
        default, lora = (np.array([row[name][column] for row in measured]) for name in ("default", "lora"))
        fault = (lambda r: -r, lambda size: np.abs(np.log(size)), lambda distance: distance)[column]
        gain = mean_estimate(fault(default) - fault(lora))
        note = (
            ""
            if gain is None
            else f"gain per clip{' (nearer to 1, by its logarithm)' if column == 1 else ''}: {gain.text(3)}"
        )
        baseline = f"default {default.mean():.3f}"
        rows.append(
            Row(f"with the LoRA: {what}", float(lora.mean()), unit=unit, digits=3, baseline=baseline, note=note)
        )
    return rows


if __name__ == "__main__":
    main()
