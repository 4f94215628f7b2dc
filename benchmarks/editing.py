"""Lip sync of real footage: is all but the mouth left alone, and does the mouth follow the voice.

    python benchmarks/editing.py --footage FOLDER [--model weights/tiny] [--clips 6] [--quick]
    python benchmarks/editing.py --turned                                   → docs/results/editing_turned.md

FOLDER holds short videos of people who talk, with sound; ``--turned`` draws held-out people who turn their heads by 14
to 29 degrees instead (needs espeak-ng). Each is given its own voice again (self-reenactment), that of
the next one (dubbing), and silence, by the whole way of ``generate --video``, and is read back from the finished file.
Prints a table and writes docs/results/editing.json and editing.md. Single clips are remembered in --work.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import wavfile
from scipy.ndimage import binary_fill_holes
from table import Row, plain, write
from workbench import Workbench

from skyreels_audio.evaluation.artefacts import seam_step
from skyreels_audio.evaluation.held_out import speaking_motion, true_video, voice
from skyreels_audio.evaluation.lips import correlation, curve_agreement, lip_aperture_curve
from skyreels_audio.evaluation.motion import amplitude_ratio
from skyreels_audio.evaluation.quality import movement, psnr
from skyreels_audio.evaluation.subjects import drawn
from skyreels_audio.faces import detect_faces
from skyreels_audio.faces.landmarks import JAW_LEFT, JAW_RIGHT, as_68, face_height
from skyreels_audio.generation.edit_plan import plan_edit
from skyreels_audio.generation.editing import CRF, edit_video
from skyreels_audio.media import SAMPLE_RATE, VideoWriter, read_audio, read_video
from skyreels_audio.synthetic.motion import FPS
from skyreels_audio.synthetic.render import Renderer

ROOT = Path(__file__).parents[1]
OUTSIDE = 48.0  # dB: issue's bar for what is not edited, after encoding
SEAM = 5.0  # levels that the border of an edit may add to the source's own step
QUICK = 2  # clips
JAW, JAW_STEP = 1.0, 5  # % of the face's height: the bar; frames from one that is compared to the next
TURNED = 40  # number of the first of the people who turn their heads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--footage", type=Path, help="folder of videos with sound")
    given.add_argument("--turned", action="store_true", help="draw people with turned heads instead")
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "tiny", help="checkpoint folder")
    parser.add_argument("--clips", type=int, default=6, help="evenly spaced among the folder's, by name")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK} clips")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench-editing", help="where clips are remembered")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()

    bench = Workbench(options.model, options.work, options.quick, None, ROOT / "examples")
    count = QUICK if options.quick else options.clips
    folder = draw_turned(options.work / "turned", count) if options.turned else options.footage
    everything = sorted(folder.glob("*.mp4"))
    count = min(count, len(everything))
    if count < 2:
        raise SystemExit(f"{folder} holds {len(everything)} videos (*.mp4); dubbing needs two")
    clips = [everything[index] for index in np.linspace(0, len(everything) - 1, count, dtype=int)]
    results = []
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        name = f"{clip.stem}-{other.stem}"
        results.append(bench.cases(name, lambda clip=clip, other=other: _measure(bench, clip, other)))
    rows = _rows(results)
    print(plain(rows))
    about = {"model": options.model.name, "date": time.strftime("%Y-%m-%d"), "clips": count, "crf": CRF}
    if options.turned:
        write(options.output, "editing_turned", "Lip sync of drawn people who turn their heads", rows, about)
    else:
        write(options.output, "editing", "Lip sync of real footage", rows, about)


def draw_turned(folder: Path, count: int) -> Path:
    """Videos of held-out drawn people who speak for three seconds with their heads turned."""
    folder.mkdir(parents=True, exist_ok=True)
    renderer = Renderer(256)
    for number in range(count):
        path = folder / f"{number}.mp4"
        if path.exists():
            continue
        said = voice(TURNED + number, 3.0)
        motion, t = speaking_motion(said, TURNED + number), np.arange(said.frames) / FPS
        side, nod, tilt = (-1) ** number, np.sin(2.0 * number), np.sin(number)
        turned_3T = [side * (18 + 3 * number % 8) + 4 * np.sin(2 * t), 8 * nod + 2 * np.sin(1.5 * t), 6 * tilt + 0 * t]
        motion = replace(motion, rotation_T3=motion.rotation_T3 + np.radians(turned_3T).T.astype(np.float32))
        shown, _ = true_video(renderer, drawn("test", TURNED + number, "realistic")[0], motion)
        with tempfile.NamedTemporaryFile(suffix=".wav") as sound:
            wavfile.write(sound.name, SAMPLE_RATE, said.waveform)
            with VideoWriter(path, 256, 256, FPS, audio=sound.name, comment="drawn") as writer:
                for frame in shown.frames:
                    writer.write(frame)
    return folder


def _measure(bench: Workbench, clip: Path, other: Path) -> dict[str, Any]:
    source, dub = (np.stack(list(read_video(path))) for path in (clip, other))
    curves = {"source": lip_aperture_curve(source), "dub": lip_aperture_curve(dub)}
    voices = {"own": read_audio(clip), "dubbed": read_audio(other)}
    voices["silent"] = np.zeros_like(voices["own"])
    result: dict[str, Any] = {}
    for name, voice_n in voices.items():
        result[name], curves[name] = _edit(bench, clip, source, voice_n)
    frames = min(map(len, curves.values()))
    curves = {name: curve[:frames] for name, curve in curves.items()}
    own, dubbed = (curve_agreement(curves[a], curves[b]) for a, b in (("own", "source"), ("dubbed", "dub")))
    return result | {
        "own_r": own.r,
        "own_lag": own.lag,
        "own_size": amplitude_ratio(curves["own"], curves["source"]),
        "dubbed_r": dubbed.r,
        "dubbed_lag": dubbed.lag,
        "dubbed_leak": correlation(curves["dubbed"], curves["source"]),
        "chance_r": correlation(curves["source"], curves["dub"]),
        "silent_movement": movement(curves["silent"]) / movement(curves["own"]),
    }


def _edit(bench: Workbench, clip: Path, source: np.ndarray, voice_n: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Figures of one edit, and the aperture of its mouth."""
    started = time.perf_counter()
    plan = plan_edit(clip, len(voice_n) / SAMPLE_RATE, bench.size)
    edited = edit_video(bench.pipe, plan, voice_n, generator=torch.Generator().manual_seed(0))
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edited.mp4"
        first = next(edited.frames)
        with VideoWriter(path, plan.info.width, plan.info.height, edited.fps, crf=CRF, colour=first.colour) as writer:
            for index, frame in zip(plan.order, (first, *edited.frames), strict=True):
                writer.write(frame)
                kept.append((frame.rgb() == source[index]).all(-1))
        seconds = time.perf_counter() - started
        frames = np.stack(list(read_video(path)))
    outside = [psnr(frame, source[index], mask) for frame, index, mask in zip(frames, plan.order, kept, strict=True)]
    seams = [
        seam_step(frame[None], source[index][None], np.asarray(binary_fill_holes(~mask)))
        for frame, index, mask in zip(frames, plan.order, kept, strict=True)
        if not mask.all()
    ]
    figures = {
        "seams": float(np.mean([step > SEAM for step in seams])),
        "outside": float(np.mean(outside)),
        "outside_worst": float(min(outside)),
        "edited_frames": float(np.mean([fault is None for fault in edited.plan.faults])),
        "edited_pixels": float(1 - np.mean(kept)),
        "per_second": seconds / (edited.num_frames / edited.fps),
    }
    figures["jaw"] = _jaw(frames[::JAW_STEP], source[plan.order[::JAW_STEP]])
    return figures, lip_aperture_curve(frames)


def _jaw(edited: np.ndarray, source: np.ndarray) -> float:
    """Mean distance of landmarks of the jaw line, from ear to ear, over the face's height."""
    away = []
    for pair in zip(edited, source, strict=True):
        a, b = (next(iter(detect_faces(frame)), None) for frame in pair)
        if a and b:
            apart = as_68(a.landmarks)[JAW_LEFT : JAW_RIGHT + 1, :2] - as_68(b.landmarks)[JAW_LEFT : JAW_RIGHT + 1, :2]
            away.append(np.linalg.norm(apart, axis=1).mean() / face_height(b.landmarks))
    return float(np.mean(away))


def _rows(results: list[dict[str, Any]]) -> list[Row]:
    def mean(name: str) -> float:
        return float(np.mean([result[name] for result in results]))

    edits = [result[voice] for result in results for voice in ("own", "dubbed", "silent")]
    outside, worst = (min(edit[name] for edit in edits) for name in ("outside", "outside_worst"))
    pixels, frames, seconds = (
        float(np.mean([edit[name] for edit in edits])) for name in ("edited_pixels", "edited_frames", "per_second")
    )
    seams = float(np.mean([edit["seams"] for edit in edits]))
    own_lags, dubbed_lags = ([result[f"{kind}_lag"] for result in results] for kind in ("own", "dubbed"))
    aperture = "gap of the inner lips over the face's height, by landmarks"
    return [
        Row("outside the edit, worst clip", outside, ("≥", OUTSIDE), unit=" dB", digits=1, note="PSNR after encoding"),
        Row("outside the edit, worst frame", worst, unit=" dB", digits=1, note="PSNR after encoding"),
        Row(
            "frames with a seam",
            100 * seams,
            ("≤", 0.5),
            unit=" %",
            note=f"of over {SEAM:g} levels around what is edited",
        ),
        Row(
            "jaw line against the source's",
            100 * float(np.mean([result["own"]["jaw"] for result in results])),
            ("≤", JAW),
            unit=" %",
            note="own voice; mean distance of landmarks over the face's height",
        ),
        Row("pixels that are edited", 100 * pixels, unit=" %", digits=1, note="mean of all frames"),
        Row("frames that are edited", 100 * frames, unit=" %", digits=1, note="the first is the reference"),
        Row("own voice: aperture against the source, r", mean("own_r"), note=f"{aperture}; lags {own_lags}"),
        Row("own voice: size of movement over the source's", mean("own_size"), note="ratio of standard deviations"),
        Row(
            "other voice: aperture against its speaker's, r",
            mean("dubbed_r"),
            baseline=f"source {mean('chance_r'):.2f}",
            note=f"lags {dubbed_lags}",
        ),
        Row("other voice: aperture against the source, r", mean("dubbed_leak"), note="what leaks from the source"),
        Row(
            "no voice: movement over that with the own voice", mean("silent_movement"), note="landmarks jitter as well"
        ),
        Row("seconds per second of video", seconds, unit=" s", note="tracking and writing included, loading not"),
    ]


if __name__ == "__main__":
    main()
