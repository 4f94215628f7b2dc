"""That a refactoring changed no result: an older commit and this tree make the same videos, compared before the codec.

    python benchmarks/refactor.py OLD_COMMIT [--cases portrait,edit] [--repeats 3]

The older code and this tree's run in turn, each in a process of its own, with the weights of the older commit, the same
inputs and the same noise: the latents that denoising ends with and the frames that would be encoded are compared, and
processor time and peak memory of both. "Wan" is a model of Wan's autoencoder with random weights, as the tests have it.
Prints a table and writes docs/results/refactor.json and refactor.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from table import Row, plain, write

ROOT = Path(__file__).parents[1]
BAR = 60.0  # dB
COSTS = 1.03
SEED = 0
SIDES = "before", "after"

CASES: dict[str, dict[str, Any]] = {
    "portrait": {"num_inference_steps": 3},
    "bfloat16": {"num_inference_steps": 3},
    "edit": {"num_inference_steps": 3},
    "three windows": {"num_inference_steps": 2, "window": 5, "overlap": 2},
    "text alone": {"num_inference_steps": 2, "prompt": "a woman with dark hair speaks"},
    "cached": {"num_inference_steps": 8, "teacache_coefficients": (1.0, 0.0)},  # skips half of the steps
    "resumed": {"num_inference_steps": 4},
    "Wan portrait": {},
    "Wan edit": {"hybrid_steps": 1},
    "Wan text alone": {"prompt": "a woman with dark hair speaks"},
    "two ranks": {"num_inference_steps": 2, "window": 5, "overlap": 2},
}
SECONDS = 1.6  # 40 frames, 11 latents: three windows of 5 that overlap by 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="the older commit")
    parser.add_argument("--cases", default=",".join(CASES), help="some of them, separated by commas")
    parser.add_argument("--repeats", type=int, default=1, help="pairs of runs; the least time of each side counts")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker.split(","), options.side, options.place)

    cases, rows = options.cases.split(","), []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        unpack(options.commit, place)
        launch(options.commit, "after", ["prepare"], place)
        for _ in range(options.repeats):
            for side in SIDES:
                if alone := [case for case in cases if case != "two ranks"]:
                    launch(options.commit, side, alone, place)
                if "two ranks" in cases:
                    launch(options.commit, side, ["two ranks"], place, ranks=2)
        for case in cases:
            rows += compare(case, place)
        peaks = [[float(path.read_text()) for path in sorted(place.glob(f"memory-{side}-*"))] for side in SIDES]
        if all(peaks):
            ratio, note = _ratio(peaks, "MB resident at most, all cases but two ranks")
            rows.append(Row("memory after over before", ratio, ("≤", COSTS), note=note))
    print(plain(rows))
    about = {"older": options.commit, "date": time.strftime("%Y-%m-%d"), "processors": len(os.sched_getaffinity(0))}
    about["load"] = round(os.getloadavg()[0], 1)  # seconds measured on a busy machine say little
    write(options.output, "refactor", "What a refactoring changed", rows, about)


def unpack(commit: str, place: Path) -> None:
    """The older tree in ``place/before``."""
    archive = subprocess.run(["git", "archive", commit, "src", "weights", "examples"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise SystemExit(f"{commit} cannot be unpacked: {archive.stderr.decode().strip()}")
    (place / "before").mkdir()
    subprocess.run(["tar", "-x", "-C", str(place / "before")], input=archive.stdout, check=True)


def launch(commit: str, side: str, cases: list[str], place: Path, ranks: int = 1) -> None:
    """Cases in a process of the code of one side, or one in several."""
    tree = ROOT if side == "after" else place / "before"
    words = [__file__, commit, "--worker", ",".join(cases), "--side", side, "--place", str(place)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    environment = os.environ | {"PYTHONPATH": f"{tree / 'src'}:{Path(__file__).parent}", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *torchrun, *words]
    subprocess.run(command, env=environment, cwd=tree, check=True, stdout=subprocess.DEVNULL)


def compare(case: str, place: Path) -> list[Row]:
    """Rows of one case: latents, frames, time."""
    before, after = ([dict(np.load(path)) for path in sorted(place.glob(f"{case}-{side}-*.npz"))] for side in SIDES)
    ratio, note = _ratio([[float(run["seconds"]) for run in runs] for runs in (before, after)], "s of processor time")
    return [
        _distance(f"{case}: latents", before[0]["latents"], after[0]["latents"], None),
        _distance(f"{case}: frames", before[0]["frames"], after[0]["frames"], 255.0),
        Row(f"{case}: time after over before", ratio, ("≤", COSTS), note=note),
    ]


def _ratio(figures: list[list[float]], unit: str) -> tuple[float, str]:
    before, after = (min(each) for each in figures)
    return after / before, f"{before:.2f} and {after:.2f} {unit}, least of {len(figures[0])} runs in turn"


def _distance(what: str, before: np.ndarray, after: np.ndarray, peak: float | None) -> Row:
    """PSNR; the peak of latents is their range. Equal arrays have none, and pass."""
    bar = ("≥", BAR)
    if before.shape != after.shape:
        return Row(what, -1.0, bar, unit=" dB", note=f"{before.shape} before, {after.shape} after")
    if (before == after).all():
        return Row(what, float("inf"), bar, unit=" dB", digits=0, note="same bytes")
    difference = after.astype(np.float64) - before
    span = peak or float(before.max() - before.min())
    value = 10 * np.log10(span**2 / np.square(difference).mean())
    note = f"largest difference {np.abs(difference).max():.3g}, {np.mean(difference != 0):.2%} differ"
    return Row(what, float(value), bar, unit=" dB", digits=1, note=note)


def work(cases: list[str], side: str, place: Path) -> None:
    """In a process of either code: make the videos of some cases, and write down what is compared."""
    import resource

    import torch

    torch.set_num_threads(1)
    if cases == ["prepare"]:
        return prepare(place)
    number = len(list(place.glob(f"{cases[0]}-{side}-*.npz")))
    with code("acceleration.distributed").process_group("cpu"):
        for case in cases:
            result = measure(case, place)
            if os.environ.get("RANK", "0") == "0":
                np.savez(place / f"{case}-{side}-{number}.npz", **result)
        if "two ranks" not in cases:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            (place / f"memory-{side}-{number}").write_text(str(peak))


def code(module: str) -> Any:
    """A module of whichever code this process runs."""
    return import_module(f"skyreels_audio.{module}")


def prepare(place: Path) -> None:
    """The voice, the picture, a video of the picture that wanders, and the model of random weights."""
    from skyreels_audio.media import VideoWriter, read_audio, read_image

    sys.path.append(str(ROOT / "tests" / "models"))
    from tiny_pipeline import make_pipeline, wan_autoencoder

    picture = read_image(ROOT / "examples" / "portrait.jpg")
    height, width = (side // 2 * 2 - 16 for side in picture.shape[:2])
    voice = read_audio(ROOT / "examples" / "voice.wav")[: round(16000 * SECONDS)]
    np.savez(place / "inputs.npz", voice=voice, picture=picture)
    with VideoWriter(place / "video.mp4", width, height, 25) as writer:
        for index in range(round(25 * SECONDS)):
            writer.write(picture[8 : 8 + height, index % 8 : index % 8 + width])
    make_pipeline(wan_autoencoder(4), channels=4, clip=True).save_pretrained(place / "wan")


def measure(case: str, place: Path) -> dict[str, Any]:
    """Latents, frames and processor seconds of a case."""
    import torch

    from skyreels_audio import SkyReelsAudioPipeline

    module, inputs = code("generation.pipeline"), dict(np.load(place / "inputs.npz"))
    dtype = torch.bfloat16 if case == "bfloat16" else torch.float32
    weights = place / "wan" if case.startswith("Wan") else place / "before" / "weights" / "tiny"
    pipe = SkyReelsAudioPipeline.from_pretrained(str(weights), dtype=dtype)
    latents: list[np.ndarray] = []
    sample = module.sample

    def recorded(*args: Any, **options: Any) -> torch.Tensor:
        latents_BCTHW = sample(*args, **options)
        latents.append(latents_BCTHW.float().cpu().numpy().copy())
        return latents_BCTHW

    module.sample, started = recorded, time.process_time()
    try:
        frames = make(case, place, pipe, inputs)
    finally:
        module.sample = sample
    return {"latents": latents[-1], "frames": np.stack(frames), "seconds": time.process_time() - started}


def make(case: str, place: Path, pipe: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The frames of a case, as they would be encoded."""
    import torch

    room = code("acceleration.accelerate")
    settings = pipe.settings(**{name: value for name, value in CASES[case].items() if name != "prompt"})
    options: dict[str, Any] = {"settings": settings, "prompt": CASES[case].get("prompt", "")}
    acceleration = room.Acceleration("teacache", threshold=1.0) if case == "cached" else room.Acceleration()
    with room.accelerated(pipe, acceleration, settings):
        if case.endswith("edit"):
            return edited(place, pipe, inputs["voice"], options | {"generator": torch.Generator().manual_seed(SEED)})
        options["audio"] = inputs["voice"]
        if "prompt" not in CASES[case]:
            options["image"] = inputs["picture"]
        if case == "resumed":
            options["resume"] = place / "state"
            interrupted(pipe, options | {"generator": torch.Generator().manual_seed(SEED)})
        frames = list(pipe(**options, generator=torch.Generator().manual_seed(SEED)).frames)
    (place / "state").unlink(missing_ok=True)
    return frames


def edited(place: Path, pipe: Any, voice_n: np.ndarray, options: dict[str, Any]) -> list[np.ndarray]:
    """The frames of the video with the mouth moved by another voice."""
    editing = code("generation.editing")
    try:
        plan_edit = code("generation.edit_plan").plan_edit
    except ModuleNotFoundError:  # before it had a file of its own
        plan_edit = editing.plan_edit
    settings = options["settings"]
    plan = plan_edit(place / "video.mp4", len(voice_n) / 16000, (settings.height, settings.width))
    return [frame.rgb() for frame in editing.edit_video(pipe, plan, voice_n, **options).frames]


def interrupted(pipe: Any, options: dict[str, Any]) -> None:
    """The same run, stopped after two steps."""

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "sample" and done == 2:
            raise KeyboardInterrupt

    try:
        pipe(**options, progress=stop)
    except KeyboardInterrupt:
        return
    raise AssertionError("the run was to be interrupted")


if __name__ == "__main__":
    main()
