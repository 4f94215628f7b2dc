"""That a refactoring changed no result: an older commit and this tree make the same videos, compared before the codec.

    python benchmarks/refactor.py [29dc772] [--cases portrait,edit] [--repeats 3]

Each case runs in processes of its own, the older code first and then this tree's, with the weights of the older commit
and the same noise: the latents that denoising ends with and the frames that would be encoded are compared, and
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
    "bfloat16": "sums in another order, rounded to 8 bits",
}
SECONDS = 1.6  # 40 frames, 11 latents: three windows of 5 that overlap by 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", default="29dc772", help="the older commit")
    parser.add_argument("--cases", default=",".join(CASES), help="some of them, separated by commas")
    parser.add_argument("--repeats", type=int, default=1, help="pairs of runs; the least time of each side counts")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--worker", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker[0], Path(options.worker[1]))

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        unpack(options.commit, place)
        launch(ROOT, "prepare", place)
        for case in options.cases.split(","):
            rows += compare(case, place, options.repeats)
            print(plain(rows[-4:]), flush=True)
    about = {"older": options.commit, "date": time.strftime("%Y-%m-%d"), "processors": len(os.sched_getaffinity(0))}
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


def launch(tree: Path, case: str, place: Path) -> None:
    """One case in a process of the code of ``tree``, or in two."""
    words = [__file__, "--worker", case, str(place)]
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if case == "two ranks" else []
    environment = os.environ | {"PYTHONPATH": f"{tree / 'src'}:{Path(__file__).parent}", "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, *ranks, *words], env=environment, cwd=tree, check=True, stdout=subprocess.DEVNULL)


def compare(case: str, place: Path, repeats: int) -> list[Row]:
    """Rows of one case: latents, frames, time, memory."""
    results: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for _ in range(repeats):
        for old in (True, False):
            launch(place / "old" if old else ROOT, case, place)
            with np.load(place / "result.npz") as result:
                results[old].append(dict(result))
    before, after = results[True][0], results[False][0]
    reason, bar = REASONS.get(case, ""), None if case in REASONS else ("≥", BAR)
    rows = [
        _distance(f"{case}: latents", before["latents"], after["latents"], None, bar, reason),
        _distance(f"{case}: frames", before["frames"], after["frames"], 255.0, bar, reason),
    ]
    for name, unit in (("seconds", "s"), ("megabytes", "MB")):
        least = {old: min(float(result[name]) for result in results[old]) for old in (True, False)}
        note = f"{least[True]:.1f} {unit} before, {least[False]:.1f} {unit} after; least of {repeats}"
        rows.append(Row(f"{case}: {name}, after over before", least[False] / least[True], ("≤", COSTS), note=note))
    return rows


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


def work(case: str, place: Path) -> None:
    """In a process of either code: make the video of a case, and write what is compared to ``place/result.npz``."""
    import torch

    from skyreels_audio.media import read_audio, read_image

    torch.set_num_threads(1)
    voice_n = read_audio(ROOT / "examples" / "voice.wav")[: round(16000 * SECONDS)]
    picture = read_image(ROOT / "examples" / "portrait.png")
    if case == "prepare":
        return prepare(picture, place)
    with np.load(place / "framed.npz") as framed:
        landmarks, cut = framed["landmarks"], framed["picture"]
    given: dict[str, Any] = {"image": picture}
    if case == "text alone":
        given = {"image": None, "prompt": PROMPT}
    elif OLD and case != "as the command found the face":
        given = {"image": cut}
        code("generation.portrait").detect_faces = lambda picture: [SimpleNamespace(landmarks=landmarks)]
    elif OLD:
        given = {"image": cut_as_the_command_did(picture)}
    with code("generation.parallel" if OLD else "acceleration.distributed").process_group("cpu") as device:
        result = measure(case, place, given, voice_n, device)
        if os.environ.get("RANK", "0") == "0":
            np.savez(place / "result.npz", **result)


def code(module: str) -> Any:
    """A module of whichever code this process runs."""
    return import_module(f"skyreels_audio.{module}")


def prepare(picture: np.ndarray, place: Path) -> None:
    """The face as this tree finds it, and a short video to edit: the picture, shifting by a pixel each frame."""
    from skyreels_audio.generation.inputs import frame_picture
    from skyreels_audio.media import VideoWriter

    framed = frame_picture(picture, (256, 256))
    assert framed.landmarks is not None
    np.savez(place / "framed.npz", landmarks=framed.landmarks, picture=framed.picture_HWC)
    side = min(picture.shape[:2]) // 2 * 2 - 64
    with VideoWriter(place / "clip.mp4", side, side, 25, crf=10) as writer:
        for index in range(round(25 * SECONDS)):
            left = 32 + index % 8
            writer.write(np.ascontiguousarray(picture[32 : 32 + side, left : left + side]))


def cut_as_the_command_did(picture: np.ndarray) -> np.ndarray:
    from PIL import Image

    from skyreels_audio.faces import detect_faces, portrait_crop

    box = portrait_crop(picture, detect_faces(picture)[0], (256, 256))
    return np.array(Image.fromarray(picture).resize((256, 256), Image.Resampling.LANCZOS, box=box))


def measure(case: str, place: Path, given: dict[str, Any], voice_n: np.ndarray, device: Any) -> dict[str, Any]:
    """Latents, frames, processor seconds and peak memory of a case."""
    import resource

    import torch

    from skyreels_audio import SkyReelsAudioPipeline
    from skyreels_audio.generation import pipeline as module

    weights = place / "old" / "weights" / "tiny" if OLD else place / "weights"
    dtype = torch.bfloat16 if case == "bfloat16" else torch.float32
    pipe = SkyReelsAudioPipeline.from_pretrained(str(weights), dtype=dtype).to(device)
    latents: list[np.ndarray] = []
    sample = module.sample

    def recorded(*args: Any, **options: Any) -> torch.Tensor:
        latents_BCTHW = sample(*args, **options)
        latents.append(latents_BCTHW.float().cpu().numpy().copy())
        return latents_BCTHW

    module.sample = recorded
    started = time.process_time()
    frames = make(case, place, pipe, given, voice_n)
    return {
        "latents": latents[-1],
        "frames": np.stack(frames),
        "seconds": time.process_time() - started,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def make(case: str, place: Path, pipe: Any, given: dict[str, Any], voice_n: np.ndarray) -> list[np.ndarray]:
    """The frames of a case, as they would be encoded."""
    import torch

    room = code("generation.acceleration" if OLD else "acceleration.accelerate")
    overrides = CASES[case]
    options: dict[str, Any] = overrides | {"generator": torch.Generator().manual_seed(SEED)}
    acceleration = room.Acceleration("teacache", threshold=1.0) if case == "cached" else room.Acceleration()
    state = place / f"state-{'old' if OLD else 'new'}"
    with room.accelerated(pipe, acceleration, pipe.settings(**overrides)) as arrange:
        if OLD:
            options["arrange"] = arrange
        if case == "edit":
            from skyreels_audio.generation.editing import edit_video, plan_edit

            plan = plan_edit(place / "clip.mp4", SECONDS, (256, 256))
            return [frame.rgb() for frame in edit_video(pipe, plan, voice_n, **options).frames]
        if case == "resumed":
            options["resume"] = state
            state.unlink(missing_ok=True)
            interrupted(pipe, given | {"audio": voice_n} | options)
            options["generator"] = torch.Generator().manual_seed(SEED)
        return list(pipe(**given, audio=voice_n, **options).frames)


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
