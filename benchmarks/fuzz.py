"""Damaged files and broken model folders at the door of ``generate``: none may crash it, hang it or leave half a file.

Files of 20 formats with bytes changed, cut, dropped or repeated are read as ``generate`` reads them, and what is
accepted is carried into a short MP4. Model folders are weights/tiny with one entry of one configuration spoiled; they
are checked as ``generate`` checks them before it loads anything. A worker does the work in its own process, with a
time limit per case; whatever is not a result or one InputError of one line is a failure. Sampling is not run.

    python benchmarks/fuzz.py --files 1000 --models 200 --report docs/results/robustness.md
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "inputs"))
from making import damaged, pictures, tones, write_clip, write_sound, write_wav  # noqa: E402
from table import write_section  # noqa: E402

LIMIT = 60.0  # seconds per case, of a core that may be shared
KINDS = ("cut", "flip", "drop", "zero", "repeat", "header")
SOUNDS = {".mp3": "libmp3lame", ".m4a": "aac", ".aac": "aac", ".opus": "libopus", ".webm": "libopus", ".flac": "flac"}
CLIPS = {".mp4": "libx264", ".mkv": "libx264", ".ts": "libx264", ".mov": "libx264", ".avi": "mpeg4"}
IMAGES = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP")
ODD = [None, -1, 0, 10**12, 1.5, float("nan"), float("inf"), "x", "", [], [1], {}, {"a": 1}, True, [[1, 2], [3]], 1e-30]


def originals(folder: Path) -> dict[str, bytes]:
    """Whole files by suffix, each small."""
    for suffix, codec in SOUNDS.items():
        write_sound(folder / f"a{suffix}", tones(0.6), codec)
    write_wav(folder / "a.wav", tones(0.6))
    for suffix, codec in CLIPS.items():
        turned = (0, 1, -1, 0) if suffix in (".mp4", ".mov") else None
        write_clip(folder / f"v{suffix}", pictures(12, 46, 62), codec, "yuv420p", pose=turned, aspect=Fraction(4, 3))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for form in IMAGES:
        file = io.BytesIO()
        Image.fromarray(pictures(1, 60, 80)[0]).save(file, form)
        files[f"p.{form.lower()}"] = file.getvalue()
    return files


def read_file(path: Path) -> str:
    """What ``generate`` does with a picture, a voice or a video before it samples, and with the sound afterwards."""
    from skyreels_audio.media import VideoWriter, image_changes, plan_carriage, probe_video, read_image, read_stored
    from skyreels_audio.rendering.inputs import frame_rate, read_voice

    if path.name.startswith("p"):
        read_image(path, 4096)
        image_changes(path, 4096)
    elif path.name.startswith("a"):
        read_voice(path)
        carriage = plan_carriage(path)
        with VideoWriter(path.parent / "out.mp4", 32, 32, 25, path, duration=0.4) as writer:
            for frame in pictures(10, 32, 32):
                writer.write(frame)
        (path.parent / "out.mp4").unlink()
        return carriage.codec
    else:
        frame_rate(path)
        info = probe_video(path)
        for _, frame in zip(range(40), read_stored(path, info.fps), strict=False):
            frame.rgb()
    return "read"


def check_model(folder: Path) -> str:
    """What ``generate`` checks of a model folder."""
    from skyreels_audio.cli.checkpoint import check_classes, check_files
    from skyreels_audio.cli.door import choose_size, read_settings

    read_settings(folder)
    choose_size("256", folder, None)
    check_files(folder)
    check_classes(folder)
    return "accepted"


def spoil_model(folder: Path, seed: int) -> Path:
    """weights/tiny, its weights linked, with one entry of one configuration replaced, removed or added."""
    from skyreels_audio.bundled import bundled

    rng, source = np.random.default_rng(seed), bundled("weights/tiny")
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    configs = []
    for path in sorted(source.rglob("*")):
        copy = model / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            copy.symlink_to(path.resolve())
        elif path.is_file():
            shutil.copy(path, copy)
            configs += [copy] if copy.name.endswith(("config.json", "model_index.json")) else []
    path = configs[rng.integers(len(configs))]
    config = json.loads(path.read_text())
    name = str(rng.choice([key for key in config if not key.startswith("_")] or ["x"]))
    if (way := rng.integers(10)) == 0:
        path.write_bytes(damaged(path.read_bytes(), seed, KINDS[seed % len(KINDS)]))
        return model
    if way == 1:
        config.pop(name, None)
    elif way == 2:
        config["unknown_entry"] = 1
    else:
        config[name] = ODD[rng.integers(len(ODD))]
    path.write_text(json.dumps(config))
    return model


def one_case(kind: str, seed: int, folder: Path, files: dict[str, bytes]) -> str:
    """ "refused", another result, or "FAILED: why"."""
    from skyreels_audio.media import InputError

    try:
        if kind == "models":
            return check_model(spoil_model(folder, seed))
        name = sorted(files)[seed % len(files)]
        path = folder / name
        path.write_bytes(damaged(files[name], seed, KINDS[seed // len(files) % len(KINDS)]))
        try:
            return read_file(path)
        finally:
            path.unlink()
    except InputError as error:
        return "refused" if "\n" not in str(error) and len(str(error)) < 600 else f"FAILED: not one sentence: {error}"
    except BaseException as error:
        return f"FAILED: {type(error).__name__}: {str(error)[:200]}"


def work(kind: str, seeds: Any, folder: Path, files: dict[str, bytes], results: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what FFmpeg says of damage
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    for seed in seeds:
        results.put(("begin", seed, ""))
        outcome = one_case(kind, seed, folder, files)
        left = [path.name for path in folder.iterdir() if path.name != "model"]
        results.put(("end", seed, f"FAILED: left {left}" if left else outcome))


def run(kind: str, count: int, files: dict[str, bytes]) -> tuple[Counter[str], list[str], float]:
    """Outcomes, failures and the slowest case's seconds; a worker that hangs or dies is replaced."""
    context, outcomes, failures, slowest, done = multiprocessing.get_context("fork"), Counter(), [], 0.0, 0
    while done < count:
        with tempfile.TemporaryDirectory() as folder:
            results = context.Queue()
            worker = context.Process(target=work, args=(kind, range(done, count), Path(folder), files, results))
            worker.start()
            started = time.monotonic()
            while done < count:
                try:
                    what, seed, outcome = results.get(timeout=LIMIT)
                except Exception:  # queue.Empty: it hangs or is dead
                    outcome = "FAILED: hangs" if worker.is_alive() else f"FAILED: died with {worker.exitcode}"
                    what, seed = "end", done
                    worker.kill()
                if what == "begin":
                    started = time.monotonic()
                    continue
                slowest, done = max(slowest, time.monotonic() - started), seed + 1
                outcomes["failed" if outcome.startswith("FAILED") else outcome] += 1
                failures += [f"{kind} {seed}: {outcome}"] if outcome.startswith("FAILED") else []
                if not worker.is_alive() and done < count:
                    break
            worker.join(5)
    return outcomes, failures, slowest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = originals(Path(folder))
    import skyreels_audio.generation.pipeline  # noqa: F401  (before the workers are forked)

    lines = ["| level | cases | refused in one sentence | used | failed | slowest |", "| --- |" + " --- |" * 5]
    failures: list[str] = []
    for kind, count in (("files", given.files), ("models", given.models)):
        outcomes, failed, slowest = run(kind, count, files)
        used = sum(outcomes.values()) - outcomes["refused"] - outcomes["failed"]
        lines.append(f"| {kind} | {count} | {outcomes['refused']} | {used} | {outcomes['failed']} | {slowest:.1f} s |")
        failures += failed
    text = "\n".join(lines + [""] + [f"- {failure}" for failure in failures[:40]]).rstrip() + "\n"
    print(text)
    if given.report:
        about = f"{(__doc__ or '').strip()}\n\nTime limit {LIMIT:g} s per case; one shared core."
        write_section(given.report, "Damaged files and model folders", f"{about}\n\n{text}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
