"""Hybrid inference (eq. 4): for how many steps a model that edits should see the whole video. Held-out people, dubbed.

    python benchmarks/hybrid.py --model weights/tiny [--clips 6]

A video of one sentence is given the voice of another by the whole way of ``generate --video``; the truth is the same
person rendered saying that. Prints a table and writes docs/results/hybrid.json and hybrid.md. Needs espeak-ng. Single
clips are remembered in --work.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from table import Row, plain, write
from workbench import Workbench

from skyreels_audio.evaluation.held_out import speaking_motion, true_video, voice
from skyreels_audio.evaluation.lips import CURVES, correlation, lip_curves
from skyreels_audio.evaluation.quality import box_mask, psnr
from skyreels_audio.evaluation.subjects import drawn
from skyreels_audio.generation.edit_plan import plan_edit
from skyreels_audio.generation.editing import edit_video
from skyreels_audio.media import VideoWriter
from skyreels_audio.synthetic.motion import FPS

ROOT = Path(__file__).parents[1]
FRAMES = 81  # 4n + 1
SHARES = 0.0, 0.25, 0.5, 0.75, 1.0  # of the steps
DUB = 5000  # the voice of clip n is held-out voice n, its dub n + DUB
JAW = list(CURVES).index("jaw")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "tiny", help="checkpoint folder")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench-hybrid", help="where clips are remembered")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()

    bench = Workbench(options.model, options.work, False, None, ROOT / "examples")
    steps = bench.settings.num_inference_steps
    rows: list[Row] = []
    for count in sorted({round(share * steps) for share in SHARES}):
        clips = range(options.clips)
        results = [bench.cases(f"{n:02d}-{count}", lambda n=n, count=count: _edit(bench, n, count)) for n in clips]
        rows += _rows(f"N = {count} of {steps}", results)
    print(plain(rows))
    about = {"model": options.model.name, "date": time.strftime("%Y-%m-%d"), "clips": options.clips, "steps": steps}
    write(options.output, "hybrid", "For how many steps a video is seen whole", rows, about)


def _edit(bench: Workbench, number: int, hybrid_steps: int) -> dict[str, float]:
    """How near one dubbed clip comes to the truth."""
    subject, _ = drawn("test", number)
    own, dub = (voice(index, FRAMES / FPS) for index in (number, number + DUB))
    source, own_curves = true_video(bench.renderer, subject, speaking_motion(own, number))
    truth, curves = true_video(bench.renderer, subject, speaking_motion(dub, number))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.mp4"
        with VideoWriter(path, bench.size[1], bench.size[0], FPS, crf=4) as writer:
            for frame in source.frames:
                writer.write(frame)
        plan = plan_edit(path, FRAMES / FPS, bench.size)
        generator = torch.Generator().manual_seed(number)
        edited = edit_video(bench.pipe, plan, dub.waveform, hybrid_steps=hybrid_steps, generator=generator)
        frames = np.stack([frame.rgb() for frame in edited.frames])
    read = lip_curves(frames, source.landmarks_T682[0])
    lower = box_mask(source.lower_face_box_T4[0], frames.shape[1:])
    return {
        "jaw": correlation(read[:, JAW], curves[:, JAW]),
        "own_jaw": correlation(read[:, JAW], own_curves[:, JAW]),
        "lips": float(np.mean([correlation(a, b) for a, b in zip(read.T, curves.T, strict=True)])),
        "lower": psnr(frames, truth.frames, lower),
        "lower_source": psnr(source.frames, truth.frames, lower),
    }


def _rows(what: str, results: list[dict[str, float]]) -> list[Row]:
    mean = {name: float(np.mean([result[name] for result in results])) for name in results[0]}
    return [
        Row(f"{what}: jaw against the dub, r", mean["jaw"], note="lip curves by the regressor"),
        Row(f"{what}: jaw against the video's own words, r", mean["own_jaw"], note="what leaks from the source"),
        Row(f"{what}: all lip curves against the dub, r", mean["lips"]),
        Row(
            f"{what}: lower face against the truth",
            mean["lower"],
            unit=" dB",
            digits=1,
            note="PSNR",
            baseline=f"source {mean['lower_source']:.1f} dB",
        ),
    ]


if __name__ == "__main__":
    main()
