"""Whether long videos cost more than their length: peak memory and time per second of video, of the command itself.

    python benchmarks/long_video.py [--seconds 10 60 600 3600] [--steps N] [--size 256x256] [--fps 5]

Each length runs in a process of its own. Prints a table and writes docs/results/long_video.json and long_video.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
from table import Row, plain, write

from skyreels_audio.media import read_audio
from skyreels_audio.threads import offered_cores

ROOT = Path(__file__).parents[1]
RATE = 16000
GIGABYTE = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "tiny", help="checkpoint folder")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60, 600])
    parser.add_argument("--steps", type=int, help="denoising steps; the checkpoint's by default")
    parser.add_argument("--size", help="WIDTHxHEIGHT of the video; the picture's by default")
    parser.add_argument("--fps", help="frames per second of the video; the checkpoint's by default")
    parser.add_argument("--voice", type=Path, default=ROOT / "examples" / "voice.wav")
    parser.add_argument("--image", type=Path, default=ROOT / "examples" / "portrait.jpg")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()

    voice_n = read_audio(options.voice)
    load, results = os.getloadavg()[0], []
    for seconds in sorted(options.seconds):
        with tempfile.TemporaryDirectory() as folder:
            results.append(_measure(voice_n, seconds, options, Path(folder)))
        print(f"  {seconds:g} s: {results[-1]}", flush=True)
    rows = _rows(sorted(options.seconds), results)
    print("\n" + plain(rows))
    about = {
        "model": options.model.name,
        "date": time.strftime("%Y-%m-%d"),
        "steps": options.steps or "the checkpoint's",
        "size": options.size or "the picture's",
        "frames per second": options.fps or "the checkpoint's",
        "processors": offered_cores(),
        "load before": round(load, 1),  # seconds measured on a busy machine say little
    }
    write(options.output, "long_video", "What length costs", rows, about)


def _measure(voice_n: np.ndarray, seconds: float, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Peak resident gigabytes, and wall and processor seconds per second of video, loading left out of the former."""
    with wave.open(str(folder / "voice.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.resize(voice_n, round(seconds * RATE)) * 32767).astype("<i2").tobytes())
    command = [sys.executable, "-c", "from skyreels_audio.cli import main; main()", "generate", "--report"]
    command += ["--image", str(options.image), "--audio", str(folder / "voice.wav"), "--model", str(options.model)]
    command += ["--output", str(folder / "video.mp4")]
    for name in ("steps", "size", "fps"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{seconds:g} s: the command failed")
    phases = json.loads((folder / "video.json").read_text())["seconds"]
    spent = sum(phases[phase] for phase in ("encode", "sample", "write"))
    return {
        "gigabytes": usage.ru_maxrss * 1024 / GIGABYTE,
        "per_second": spent / seconds,
        "processor": (usage.ru_utime + usage.ru_stime) / seconds,
    }


def _rows(lengths: list[float], results: list[dict[str, float]]) -> list[Row]:
    rows = []
    for seconds, result in zip(lengths, results, strict=True):
        what = f"{seconds:g} s of video"
        rows.append(Row(f"{what}: peak memory", result["gigabytes"], ("≤", 3.0), unit=" GB", note="resident"))
        note = f"wall clock without loading; {result['processor']:.2f} s of processor time with it"
        rows.append(Row(f"{what}: seconds per second", result["per_second"], unit=" s", note=note))
    ratio = results[-1]["per_second"] / results[0]["per_second"]
    what = f"time per second, {lengths[-1]:g} s over {lengths[0]:g} s"
    return [*rows, Row(what, ratio, ("≤", 1.05), note="wall clock without loading")]


if __name__ == "__main__":
    main()
