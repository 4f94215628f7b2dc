"""Precision and recall of curation per planted fault, and what it costs: speed per stage, workers, memory, resume.

    python benchmarks/curation.py --real data/talking --drawn out/clips --work pool [--each 4] [--half A]

``--drawn`` is a folder of ``skyreels-audio synthesize``. Limits are those of recipes/curate.yaml. They were set by
looking at half A of the pool; the figures are of half B, which shares no base clip with it. Scores stay in the work
folder: with other limits the same command selects again, and a stage of a new version scores alone.
"""

import argparse
import json
import resource
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from curation_pool import Truth, make_pool, read_base

from skyreels_audio.curation.engine import curate
from skyreels_audio.curation.recipe import Recipe, read_recipe
from skyreels_audio.curation.report import cost_table
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.select import LIGHT, Verdict, read_rows, select
from skyreels_audio.curation.storage import Folder

ROOT = Path(__file__).parents[1]
SECONDS = 3.0  # of every base clip
# Fault → the reasons by which it counts as found. A clip rejected for one of them without the fault is a false alarm.
FOUND = {
    "two faces": ("content.most_faces", "content.single_face"),
    "no face": ("content.single_face", "portrait.coverage"),
    "small face": ("portrait.face_share", "content.single_face"),
    "subtitles": ("content.text",),
    "letterbox": ("content.letterbox",),
    "static": ("content.static",),
    "blur": ("quality.sharpness",),
    "dark": ("quality.brightness",),
    "noise": ("quality.noise",),
    "duplicate frames": ("quality.duplicates",),
    "music": ("audio.music", "audio.snr"),
    "two speakers": ("audio.speakers",),
    "telephone": ("audio.bandwidth",),
    "noisy sound": ("audio.snr",),
    "clipping": ("audio.clipping",),
    "silence": ("audio.loudness", "audio.speech", "audio.snr"),
    "wander": ("synchrony.sync_wander",),
    "dubbed": ("synchrony.sync_confidence", "synchrony.sync_wander"),
    "no audio": ("probe.has_audio",),
    "truncated": ("probe.error", "split.decoded", "split.error"),
    "wrong extension": ("probe.error",),
    "zero bytes": ("probe.error",),
    "8K": ("probe.width", "probe.height"),
    "near duplicate": ("duplicates.of",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--drawn", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--each", type=int, default=4, help="clips per fault and half")
    parser.add_argument("--half", choices=["A", "B"], default="B")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pool-only", action="store_true")
    given = parser.parse_args()
    pool = given.work / "pool"
    if (pool / "truth.json").exists():
        truths = [Truth(**each) for each in json.loads((pool / "truth.json").read_text())]
    else:
        truths = make_pool(_bases(given.real, given.drawn), pool, given.each)
    if given.pool_only:
        return
    recipe = read_recipe(ROOT / "recipes" / "curate.yaml")
    chosen = [truth for truth in truths if truth.half == given.half]
    sources = given.work / f"sources-{given.half}.txt"
    sources.write_text("".join(f"{pool / truth.file}\n" for truth in chosen))
    out = given.work / f"rows-{given.half}"
    begun = time.perf_counter()
    outcome = curate(recipe if given.half == "B" else replace_limits(recipe), sources, out, workers=given.workers)
    spent = time.perf_counter() - begun
    verdicts = select(read_rows(Folder(out), LIGHT), recipe)
    table = accuracy(chosen, verdicts)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(
        f"half {given.half}: {len(chosen)} files, {outcome.scored} scored in {spent:.0f} s; worker's peak {peak:.2f} GB"
    )
    print_table(table, [each.clip for each in verdicts])
    (given.work / f"result-{given.half}.json").write_text(json.dumps(table, indent=1))


def replace_limits(recipe: Recipe) -> Recipe:
    """The recipe with nothing rejected before it is measured, so that every score of every clip is there to look at."""
    return recipe.model_copy(update={"limits": {"probe": recipe.limits["probe"]}})


def _bases(real: Path, drawn: Path) -> dict:
    """Half A and half B: no base clip in both. Real ones are not among those that fitted the voice's map to lips."""
    footage, rendered = sorted(real.glob("*.mp4")), sorted(drawn.glob("*.mp4"))
    parts = {"A": (footage[5::8][:8], rendered[:8]), "B": (footage[7::20][:12], rendered[8:18])}
    halves = {}
    for half, (real_part, drawn_part) in parts.items():
        clips = [read_base(path, True, SECONDS) for path in real_part]
        clips += [read_base(path, False, SECONDS) for path in drawn_part]
        order = np.random.default_rng(ord(half)).permutation(len(clips))
        halves[half] = [clips[index] for index in order]
    return halves


def accuracy(truths: list[Truth], verdicts: list[Verdict]) -> dict[str, dict[str, float]]:
    """Fault → clips, recall, precision. What a file's clips are rejected for, first reasons only, decides."""
    by_file: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_file[Path(verdict.clip.source).name].append(verdict)
    reasons = {truth.file: {each.reason for each in by_file[truth.file]} for truth in truths}
    base = {truth.file: truth.base for truth in truths}
    for copy in (truth.file for truth in truths if truth.fault == "near duplicate"):
        original = copy.replace("near_duplicate", "clean")  # which of the two is kept is no matter
        if "duplicates.of" in reasons[original]:
            reasons[copy], reasons[original] = reasons[original], reasons[copy]
    bases = {verdict.clip.id: base.get(name) for name, found in by_file.items() for verdict in found}
    for truth in truths:  # a shifted clip and a clean one of the same base are the same material too
        for verdict in by_file[truth.file]:
            same = verdict.duplicate_of is not None and bases[verdict.duplicate_of] == truth.base
            if truth.fault != "near duplicate" and truth.base is not None and same:
                reasons[truth.file] = {None}
    table = {}
    for fault, counting in FOUND.items():
        planted = [truth for truth in truths if truth.fault == fault]
        hits = [truth for truth in planted if reasons[truth.file] & set(counting)]
        # Only clean clips and those whose own fault is found in another way can be false alarms.
        others = [t for t in truths if t.fault != fault and not set(FOUND.get(t.fault, ())) & set(counting)]
        alarms = [truth for truth in others if reasons[truth.file] & set(counting)]
        table[fault] = _row(len(planted), len(hits), len(alarms))
        table[fault]["missed"] = [truth.file for truth in planted if truth not in hits]  # pyright: ignore
        table[fault]["alarms"] = [truth.file for truth in alarms]  # pyright: ignore
    clean = [truth for truth in truths if truth.fault == "clean"]
    kept = [truth for truth in clean if None in reasons[truth.file]]
    table["clean, kept"] = _row(len(clean), len(kept), 0)
    table["clean, kept"]["missed"] = [f"{t.file}: {reasons[t.file]}" for t in clean if t not in kept]  # pyright: ignore
    return table | _offsets(truths, by_file) | _cuts(truths, by_file)


def _row(planted: int, hits: int, alarms: int) -> dict[str, float]:
    recall = hits / planted if planted else float("nan")
    return {"clips": planted, "recall": recall, "precision": hits / (hits + alarms) if hits + alarms else float("nan")}


def _offsets(truths: list[Truth], by_file: dict[str, list[Verdict]]) -> dict[str, dict[str, float]]:
    """An offset is found within one frame; a false alarm is a clean clip that seems to be two or more frames off."""
    measured = {
        truth.file: clips[0].clip.sync_offset
        for truth in truths
        if truth.fault in ("clean", "shift") and len(clips := by_file[truth.file]) == 1
    }
    shifted = [truth for truth in truths if truth.fault == "shift"]
    hits = [t for t in shifted if (m := measured.get(t.file)) is not None and abs(m - (t.value or 0)) <= 1]
    clean = [truth.file for truth in truths if truth.fault == "clean"]
    alarms = [file for file in clean if abs(measured.get(file) or 0) >= 2]
    row = _row(len(shifted), len(hits), len(alarms))
    row["missed"] = [f"{t.file}: {measured.get(t.file)}" for t in shifted if t not in hits]  # pyright: ignore
    return {"shift": row}


def _cuts(truths: list[Truth], by_file: dict[str, list[Verdict]]) -> dict[str, dict[str, float]]:
    """A cut is found if a clip begins within a frame of it; a false alarm is any other border inside a source."""
    hits, alarms, missed = 0, 0, []
    planted = [truth for truth in truths if truth.fault == "cut"]
    for truth in truths:
        starts = [each.clip.start for each in by_file[truth.file] if each.clip.start > 0]
        at = truth.value if truth.fault == "cut" else None
        near = [start for start in starts if at is not None and abs(start - at) <= 0.041]
        hits += bool(near)
        alarms += len(starts) - len(near)
        if truth.fault == "cut" and not near:
            missed.append(truth.file)
    row = _row(len(planted), hits, alarms)
    row["missed"] = missed  # pyright: ignore
    return {"cut": row}


def print_table(table: dict[str, dict[str, float]], clips: list[Clip]) -> None:
    print(f"{'fault':18} {'clips':>5} {'recall':>7} {'precision':>9}")
    for fault, row in table.items():
        print(f"{fault:18} {row['clips']:5} {row['recall']:7.2f} {row['precision']:9.2f}")
        for kind in ("missed", "alarms"):
            if row.get(kind):
                print(f"    {kind}: {row[kind]}")
    print("\nseconds of one core for an hour of video:")
    for name, seconds, share in cost_table(clips):
        print(f"    {name:12} {seconds:6.0f}   reached by {100 * share:.0f} %")


if __name__ == "__main__":
    main()
