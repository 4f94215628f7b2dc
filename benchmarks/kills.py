"""`kill -9` and a full disc at random moments of generate, convert, precompute and train.

After each the same command is run again, and disturbed again, until it ends. Every time, whatever bears its final name
must be whole and what an undisturbed run writes, byte for byte; what was finished (denoising steps that are stored,
files of weights, samples, steps that were reported) must not be done again; at the end nothing may be missing and
nothing be left over. A full disc must be told in one sentence. Models and data are of the tests' size, a command takes
about a second: the moments are random in processor time, so they fall everywhere in it, whatever else the machine does.

Commands are forked from one process that has imported everything. A full disc is a limit on the length of a file, by
which writing fails midway as on a full disc, in the files of the command alone. The training is the loop of every
recipe on a task of milliseconds.

    python benchmarks/kills.py --kills 25 --full 5 [--report docs/results/robustness.md]
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models"), str(ROOT / "tests" / "inputs")]
from making import muxed, pictures, tones, write_clip, write_wav  # noqa: E402
from table import write_section  # noqa: E402
from tiny_checkpoints import save_diffusers, save_whisper  # noqa: E402
from tiny_pipeline import make_pipeline, wan_autoencoder  # noqa: E402

from skyreels_audio import cli  # noqa: E402
from skyreels_audio.cli.progress import Progress  # noqa: E402
from skyreels_audio.models.convert import convert_backbone  # noqa: E402
from skyreels_audio.rendering.run import Run  # noqa: E402, F401  (imported before anything is forked)
from skyreels_audio.training import precompute as precomputing  # noqa: E402
from skyreels_audio.training.manifest import ManifestRow, file_hash, write_manifest  # noqa: E402
from skyreels_audio.training.trainer import fit  # noqa: E402
from tests.training.small_task import LineTask, options  # noqa: E402

HANGS = 900  # seconds, of a core that may be shared by many


class Broken(Exception):
    """What a disturbed run left is not what it should be."""


@dataclass
class Work:
    """A command.

    Attributes:
        run: does it, writing into a folder, and keeps a log there of the steps it computes; it goes on if it can.
        result: hashes of what is there under final names; raises Broken if something is not whole.
        stored: names of what a run need not do again.
        units: by name what changes when that is done again: how often it was done, or which file it is.
    """

    name: str
    run: Callable[[Path], None]
    result: Callable[[Path], dict[str, str]]
    stored: Callable[[Path], set[str]]
    units: Callable[[Path], dict[str, Any]]
    seconds: float = 0.0
    whole: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    largest: int = 0


def command(*words: str | Path) -> None:
    sys.argv = ["skyreels-audio", *map(str, words)]
    cli.main()


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def partials(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.partial") if path.is_file()}


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def generate(folder: Path) -> Work:
    model = folder / "model"
    make_pipeline(wan_autoencoder(4), channels=4).save_pretrained(model)
    Image.fromarray(pictures(1, 40, 50)[0]).save(folder / "face.png")
    write_wav(folder / "voice.wav", tones(1.0, 16000, 1), 16000)
    given = ["--image", folder / "face.png", "--audio", folder / "voice.wav", "--model", model, "--steps", "8"]

    def run(out: Path) -> None:
        log = os.open(out / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        shown = Progress.__call__

        def logged(self: Progress, phase: str, done: int, total: int) -> None:
            if phase == "sample" and done < total:
                os.write(log, f"{done}\n".encode())
            shown(self, phase, done, total)

        Progress.__call__ = logged
        command("generate", *given, "-o", out / "talk.mp4", "--resume")

    def result(out: Path) -> dict[str, str]:
        if (out / "talk.state").exists():
            torch.load(out / "talk.state", weights_only=True)  # or it raises
        return {name: digest for name, digest in files(out).items() if name in ("talk.mp4", "talk.png")}

    def stored(out: Path) -> set[str]:
        state = out / "talk.state"
        return set(map(str, range(torch.load(state, weights_only=True)["finished"]))) if state.exists() else set()

    def units(out: Path) -> dict[str, Any]:
        """How often each step was computed."""
        return Counter((out / "log").read_text().split()) if (out / "log").exists() else {}

    return Work("generate", run, result, stored, units)


def convert(folder: Path) -> Work:
    save_diffusers("SkyReels-V2-I2V-1.3B-540P", folder / "backbone")
    save_whisper(folder / "whisper")
    given = ["--backbone", folder / "backbone", "--whisper", folder / "whisper"]

    def run(out: Path) -> None:
        if not (out / "model").exists():  # it is refused where it is done
            command("convert", *given, "--out", out / "model")

    def units(out: Path) -> dict[str, Any]:
        return {path.name: identity(path) for path in out.glob("model*/transformer/*.safetensors")}

    return Work("convert", run, lambda out: files(out / "model"), lambda out: set(units(out)), units)


def precompute(folder: Path) -> Work:
    torch.manual_seed(0)
    save_diffusers("SkyReels-V2-I2V-1.3B-540P", folder / "backbone")
    convert_backbone(folder / "backbone", folder / "model", save_whisper(folder / "whisper"))
    rows = []
    for number in range(4):
        path, sound = folder / f"{number}.mkv", folder / f"{number}.wav"
        write_wav(sound, tones(0.8, 16000, 1), 16000)
        write_clip(folder / "silent.mkv", [np.roll(each, number, 1) for each in pictures(20, 64, 64)])
        muxed(path, folder / "silent.mkv", sound)
        points = np.random.default_rng(number).uniform(10, 50, (20, 68, 2)).astype(np.float32)
        boxes = np.tile(np.array([10, 10, 50, 50], np.float32), (20, 1))
        known = {"face_boxes_F4": boxes, "landmarks_F682": points, "width": 64, "height": 64}
        rows.append(ManifestRow(str(path), 0.0, 0.8, 25.0, file_hash(path), **known))
    write_manifest(rows, folder / "clips.parquet")
    precomputing.CLIPS_PER_SHARD = 2
    given = ["--model", folder / "model", "--size", "64x64", "--latents", "3", "--held-out", "0", "--device", "cpu"]

    def run(out: Path) -> None:
        command("precompute", folder / "clips.parquet", *given, "--out", out / "shards")

    def result(out: Path) -> dict[str, str]:
        found = {name: digest for name, digest in files(out / "shards").items() if name == "null.safetensors"}
        for shard in sorted((out / "shards").glob("shard-*.tar")):
            with tarfile.open(shard) as tar:
                data = {member.name: tar.extractfile(member).read() for member in tar}  # pyright: ignore[reportOptionalMemberAccess]
            for name, tensors in data.items():
                if name.endswith(".safetensors"):
                    key, digest = name.removesuffix(".safetensors"), hashlib.sha256(tensors).hexdigest()
                    if key in found or json.loads(data[f"{key}.json"])["sha256"] != digest:
                        raise Broken(f"{key} is there twice, or damaged")
                    found[key] = digest
        return found

    def units(out: Path) -> dict[str, Any]:
        return {path.name: identity(path) for path in (out / "shards").glob("shard-*.tar")}

    return Work("precompute", run, result, lambda out: set(units(out)), units)


def train(folder: Path) -> Work:
    def run(out: Path) -> None:
        with cli.in_sentences():
            fit(LineTask(), options(steps=60, log_every=1, save_every=7, sample_every=30, keep=100), out / "run")

    def rows(out: Path) -> list[dict[str, Any]]:
        metrics = out / "run" / "metrics.jsonl"
        whole = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
        return [row for row in map(json.loads, whole) if "loss" in row]

    def result(out: Path) -> dict[str, str]:
        found = {f"row {row['step']}": f"{row['loss']} {row['gradient_norm']}" for row in rows(out)}
        for state in sorted((out / "run").glob("state-*")):
            told = json.loads((state / "state.json").read_text())
            if any(sha(state / name) != digest for name, digest in told["files"].items()):
                raise Broken(f"{state.name} is damaged")
            del told["files"][".metadata"]  # names the folder
            found[state.name] = json.dumps(told)
        return found

    def stored(out: Path) -> set[str]:
        last = max((int(state.name[6:]) for state in (out / "run").glob("state-*")), default=0)
        return set(map(str, range(1, last + 1)))

    def units(out: Path) -> dict[str, Any]:
        """How often each step was told."""
        return Counter(str(row["step"]) for row in rows(out))

    return Work("train", run, result, stored, units)


def started(work: Work, out: Path, kill_after: float | None, longest_file: int | None) -> tuple[int, float, str]:
    """Run a command in a child; its exit status (negative: the signal), processor seconds, and what it said."""
    sys.stdout.flush()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if longest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (longest_file, longest_file))
        code: Any = 0
        try:
            work.run(out)
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(writer)
    clock, begun = (~pid << 3) | 2, time.monotonic()  # Linux's number for the processor time of a process
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            with os.fdopen(reader, errors="replace") as said:
                return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, said.read()
        if kill_after is not None and time.clock_gettime(clock) >= kill_after:
            os.kill(pid, signal.SIGKILL)
            kill_after = None
        if time.monotonic() - begun > HANGS:
            os.kill(pid, signal.SIGKILL)
            raise Broken(f"hangs: no end within {HANGS} s")
        time.sleep(0.002)


def undisturbed(work: Work, folder: Path) -> None:
    """What the command writes, and how much processor time that takes."""
    out = folder / "whole"
    out.mkdir()
    code, work.seconds, said = started(work, out, None, None)
    if code:
        raise SystemExit(f"{work.name}: {said}")
    work.whole, work.names = work.result(out), set(files(out)) - {"log"}
    work.largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())


def check(work: Work, out: Path, before: dict[str, Any], ended: bool) -> None:
    """Raises Broken if anything is lost, half, another than it should be, or was done again."""
    found = work.result(out)
    wrong = [name for name, digest in found.items() if work.whole.get(name) != digest]
    if wrong:
        raise Broken(f"differs from an undisturbed run: {', '.join(wrong)}")
    after = work.units(out)
    again = [name for name, value in before.items() if name in after and after[name] != value]
    if again:
        raise Broken(f"done again: {', '.join(again)}")
    if ended:
        missing = work.whole.keys() - found.keys()
        shards = work.name == "precompute"  # named by what they hold, which depends on where it was interrupted
        left = {name for name in files(out) if not (shards and name.endswith(".tar"))} - work.names - {"log"}
        if missing or left:
            raise Broken(f"missing: {sorted(missing)}; left over: {sorted(left)}")


def disturb(work: Work, folder: Path, kills: int, full: int, chance: random.Random) -> tuple[Counter[str], list[str]]:
    """Disturb runs so often; counts, and what went wrong."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    while counts["kills"] < kills or counts["full"] < full:
        out = folder / f"{sum(counts.values())}"
        out.mkdir()
        counts["runs"] += 1
        try:
            run_to_the_end(work, out, counts, kills, full, chance)
        except Broken as broken:
            faults.append(f"{work.name}, run {counts['runs']}: {broken}")
        shutil.rmtree(out)
    return counts, faults


def run_to_the_end(work: Work, out: Path, counts: Counter[str], kills: int, full: int, chance: random.Random) -> None:
    while True:
        kill = counts["kills"] < kills and chance.random() < 0.85
        limit = not kill and counts["full"] < full
        longest = int(np.exp(chance.uniform(np.log(50), np.log(work.largest)))) if limit else None
        units, begun = work.units(out), partials(out)
        before = {name: units[name] for name in work.stored(out)}
        code, _, said = started(work, out, chance.uniform(0, work.seconds) if kill else None, longest)
        counts["kills"] += code == -signal.SIGKILL
        if longest is not None and code:
            counts["full"] += 1
            errors = [line for line in said.splitlines() if line.startswith("Error: ")]
            if code != 2 or len(errors) != 1 or "Traceback" in said:
                raise Broken(f"a full disc ({longest} bytes) ends with {code}: {said[-600:]}")
            if left := partials(out) - begun:  # what a kill left goes when the same file is written again
                raise Broken(f"a full disc ({longest} bytes) leaves {left}")
        elif code not in (0, -signal.SIGKILL):
            raise Broken(f"ends with {code}: {said[-600:]}")
        check(work, out, before, ended=code == 0)
        if code == 0:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="of each command")
    parser.add_argument("--full", type=int, default=5, help="full discs of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one of the commands")
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "| command | kills | full discs | runs to the end | faults | processor time of a run |",
        "| --- |" + " --- |" * 5,
    ]
    faults: list[str] = []
    for make in (train, convert, generate, precompute):
        if given.only in (None, make.__name__):
            with tempfile.TemporaryDirectory() as name:
                work = make(Path(name))
                undisturbed(work, Path(name))
                counts, failed = disturb(work, Path(name), given.kills, given.full, random.Random(given.seed))
            row = [work.name, counts["kills"], counts["full"], counts["runs"], len(failed), f"{work.seconds:.1f} s"]
            lines.append(f"| {' | '.join(map(str, row))} |")
            faults += failed
            print(lines[-1], *failed, sep="\n", flush=True)
    if given.report:
        text = "\n".join([(__doc__ or "").strip(), "", *lines, "", *(f"- {fault}" for fault in faults)])
        write_section(given.report, "Kills and full discs", text)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
