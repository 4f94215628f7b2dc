"""That a refactoring changed no result: an older commit and this tree make the same videos, compared before the codec.

    python benchmarks/refactor.py [29dc772] [--cases portrait,edit] [--repeats 3]

The older code and this tree's run in turn, each in a process of its own, with the weights of the older commit, the same
pixels and the same noise: the latents that denoising ends with and the frames that would be encoded are compared, and
processor time and peak memory of both. Prints a table and writes docs/results/refactor.json and refactor.md.

The older code found a portrait's face twice, before and after cutting the picture; now it is found once. So in all
cases but "as the command found the face" it is given the face that this tree found.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from table import Row, plain, write

ROOT = Path(__file__).parents[1]
OLD = find_spec("skyreels_audio.generation.calls") is not None  # this process runs the older code
BAR = 60.0  # dB
COSTS = 1.03
SEED = 0
SIZE = 256, 256
SIDES = "before", "after"
PROMPT = "a woman with dark hair speaks"

CASES: dict[str, dict[str, Any]] = {
    "portrait": {"num_inference_steps": 3},
    "as the command found the face": {"num_inference_steps": 3},
    "bfloat16": {"num_inference_steps": 3},
    "edit": {"num_inference_steps": 3},
    "three windows": {"num_inference_steps": 2, "window": 5},
    "text alone": {"num_inference_steps": 2},
    "cached": {"num_inference_steps": 8},
    "resumed": {"num_inference_steps": 4},
    "two ranks": {"num_inference_steps": 2, "window": 5},
}
REASONS = {
    "as the command found the face": "not the loop: landmarks of the whole picture instead of the cut one",
    "text alone": "a sum in another order in the picture from words, whose levels and landmarks are rounded",
}
FREE = {"as the command found the face"}  # no bar: what it compares was meant to change
SECONDS = 1.6  # 40 frames, 11 latents: three windows of 5 that overlap by 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", default="29dc772", help="the older commit")
    parser.add_argument("--cases", default=",".join(CASES), help="some of them, separated by commas")
    parser.add_argument("--repeats", type=int, default=1, help="pairs of runs; the least time of each side counts")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker.split(","), options.place)

    cases, rows = options.cases.split(","), []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        unpack(options.commit, place)
        launch(ROOT, ["prepare"], place)
        for _ in range(options.repeats):
            for tree in (place / "old", ROOT):
                if alone := [case for case in cases if case != "two ranks"]:
                    launch(tree, alone, place)
                if "two ranks" in cases:
                    launch(tree, ["two ranks"], place, ranks=2)
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
    """The older tree in ``place/old``, and its weights with this tree's names of settings in ``place/weights``."""
    archive = subprocess.run(["git", "archive", commit, "src", "weights", "examples"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise SystemExit(f"{commit} cannot be unpacked: {archive.stderr.decode().strip()}")
    (place / "old").mkdir()
    subprocess.run(["tar", "-x", "-C", str(place / "old")], input=archive.stdout, check=True)
    weights = place / "weights"
    subprocess.run(["cp", "-r", str(place / "old" / "weights" / "tiny"), str(weights)], check=True)
    index = json.loads((weights / "model_index.json").read_text())
    defaults = index["generation_defaults"]
    if "animate" in defaults:
        defaults["edit_region"] = defaults.pop("animate")
    defaults["silence_guidance_fade"] = defaults.pop("ease_silence", True)
    names = {"models.audio": "models.audio_features"}
    for part in index.values():
        if isinstance(part, list) and part[0] and part[0].startswith("skyreels_audio."):
            name = part[0].removeprefix("skyreels_audio.")
            part[0] = f"skyreels_audio.{names.get(name, name)}"
    (weights / "model_index.json").write_text(json.dumps(index))


def launch(tree: Path, cases: list[str], place: Path, ranks: int = 1) -> None:
    """Cases in a process of the code of ``tree``, or one in several."""
    words = [__file__, "--worker", ",".join(cases), "--place", str(place)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    environment = os.environ | {"PYTHONPATH": f"{tree / 'src'}:{Path(__file__).parent}", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *torchrun, *words]
    subprocess.run(command, env=environment, cwd=tree, check=True, stdout=subprocess.DEVNULL)


def compare(case: str, place: Path) -> list[Row]:
    """Rows of one case: latents, frames, time."""
    before, after = ([dict(np.load(path)) for path in sorted(place.glob(f"{case}-{side}-*.npz"))] for side in SIDES)
    reason, bar = REASONS.get(case, ""), None if case in FREE else ("≥", BAR)
    ratio, note = _ratio([[float(run["seconds"]) for run in runs] for runs in (before, after)], "s of processor time")
    return [
        _distance(f"{case}: latents", before[0]["latents"], after[0]["latents"], None, bar, reason),
        _distance(f"{case}: frames", before[0]["frames"], after[0]["frames"], 255.0, bar, reason),
        Row(f"{case}: time after over before", ratio, ("≤", COSTS), note=note),
    ]


def _ratio(figures: list[list[float]], unit: str) -> tuple[float, str]:
    before, after = (min(each) for each in figures)
    return after / before, f"{before:.2f} and {after:.2f} {unit}, least of {len(figures[0])} runs in turn"


def _distance(
    what: str, before: np.ndarray, after: np.ndarray, peak: float | None, bar: tuple[str, float] | None, reason: str
) -> Row:
    """PSNR; the peak of latents is their range. Equal arrays have none, and pass."""
    if before.shape != after.shape:
        return Row(what, -1.0, bar, unit=" dB", note=f"{before.shape} before, {after.shape} after")
    if (before == after).all():
        return Row(what, float("inf"), bar, unit=" dB", digits=0, note="same bytes")
    difference = after.astype(np.float64) - before
    span = peak or float(before.max() - before.min())
    value = 10 * np.log10(span**2 / np.square(difference).mean())
    reason = reason or "a sum in another order"
    note = f"{reason}; largest difference {np.abs(difference).max():.3g}, {np.mean(difference != 0):.2%} differ"
    return Row(what, float(value), bar, unit=" dB", digits=1, note=note)


def work(cases: list[str], place: Path) -> None:
    """In a process of either code: make the videos of some cases, and write down what is compared."""
    import resource

    import torch

    torch.set_num_threads(1)
    if cases == ["prepare"]:
        return prepare(place)
    side, inputs = SIDES[not OLD], dict(np.load(place / "inputs.npz"))
    with code("generation.parallel" if OLD else "acceleration.distributed").process_group("cpu"):
        for case in cases:
            result, number = measure(case, place, inputs), len(list(place.glob(f"{case}-{side}-*.npz")))
            if os.environ.get("RANK", "0") == "0":
                np.savez(place / f"{case}-{side}-{number}.npz", **result)
        if "two ranks" not in cases:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            (place / f"memory-{side}-{number}").write_text(str(peak))


def code(module: str) -> Any:
    """A module of whichever code this process runs."""
    return import_module(f"skyreels_audio.{module}")


def prepare(place: Path) -> None:
    """The voice, the picture, the face in it as this tree finds it, and crops to edit: the picture, wandering."""
    from skyreels_audio.faces.framing import region_mask
    from skyreels_audio.generation.inputs import frame_picture
    from skyreels_audio.media import read_audio, read_image

    picture = read_image(ROOT / "examples" / "portrait.png")
    framed = frame_picture(picture, SIZE)
    assert framed.landmarks is not None
    video = np.stack([np.roll(framed.picture_HWC, index % 8, axis=1) for index in range(round(25 * SECONDS))])
    np.savez(
        place / "inputs.npz",
        voice=read_audio(ROOT / "examples" / "voice.wav")[: round(16000 * SECONDS)],
        picture=picture,
        framed=framed.picture_HWC,
        landmarks=framed.landmarks,
        video=video,
        known=np.repeat(~region_mask("mouth", SIZE)[None], len(video), axis=0),
    )


def given(case: str, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the pipeline is called with."""
    if case == "text alone":
        return {"prompt": PROMPT}
    if case == "edit":
        return {"video": inputs["video"], "known": inputs["known"]}
    if not OLD:
        return {"image": inputs["picture"]}
    if case == "as the command found the face":
        from PIL import Image

        from skyreels_audio.faces import detect_faces, portrait_crop

        picture = inputs["picture"]
        box = portrait_crop(picture, detect_faces(picture)[0], SIZE)
        return {"image": np.array(Image.fromarray(picture).resize(SIZE, Image.Resampling.LANCZOS, box=box))}
    return {"image": inputs["framed"]}


def measure(case: str, place: Path, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Latents, frames and processor seconds of a case."""
    import torch

    from skyreels_audio import SkyReelsAudioPipeline

    module, weights = code("generation.pipeline"), place / "old" / "weights" / "tiny" if OLD else place / "weights"
    dtype = torch.bfloat16 if case == "bfloat16" else torch.float32
    pipe = SkyReelsAudioPipeline.from_pretrained(str(weights), dtype=dtype)
    latents: list[np.ndarray] = []
    sample = module.sample

    def recorded(*args: Any, **options: Any) -> torch.Tensor:
        latents_BCTHW = sample(*args, **options)
        latents.append(latents_BCTHW.float().cpu().numpy().copy())
        return latents_BCTHW

    faces = code("generation.portrait").__dict__
    search: Any = faces.get("detect_faces")
    if OLD and case not in ("text alone", "as the command found the face"):
        found = [SimpleNamespace(landmarks=inputs["landmarks"])]
        faces["detect_faces"] = lambda picture: search(picture) and found  # it takes its time all the same
    module.sample, started = recorded, time.process_time()
    try:
        frames = make(case, place, pipe, given(case, inputs) | {"audio": inputs["voice"]})
    finally:
        module.sample = sample
        if OLD:
            faces["detect_faces"] = search
    return {"latents": latents[-1], "frames": np.stack(frames), "seconds": time.process_time() - started}


def make(case: str, place: Path, pipe: Any, inputs: dict[str, Any]) -> list[np.ndarray]:
    """The frames of a case, as they would be encoded."""
    import torch

    room = code("generation.acceleration" if OLD else "acceleration.accelerate")
    overrides = CASES[case]
    options: dict[str, Any] = inputs | overrides | {"generator": torch.Generator().manual_seed(SEED)}
    acceleration = room.Acceleration("teacache", threshold=1.0) if case == "cached" else room.Acceleration()
    with room.accelerated(pipe, acceleration, pipe.settings(**overrides)) as arrange:
        if OLD:
            options["arrange"] = arrange
        if case == "resumed":
            options["resume"] = place / "state"
            interrupted(pipe, options)
            options["generator"] = torch.Generator().manual_seed(SEED)
        frames = list(pipe(**options).frames)
    (place / "state").unlink(missing_ok=True)
    return frames


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
