"""docs/results/ablations.md out of what `benchmarks/ablations.py` measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from skyreels_audio.evaluation.statistics import Estimate, mean_estimate

COLUMNS = {"Sync-C ↑": "sync_c", "Sync-D ↓": "sync_d", "IQA ↑": "iqa", "ASE ↑": "ase", "offset ±1 ↑": "offset"}
LIPS = {"lips, dB ↑": "lips", "eq. 1, images ↓": "eq1", "own voice against another's ↑": "gap"}
JAW = {"jaw r ↑": "jaw_r", "amplitude": "amplitude"}
FEWEST = 5  # clips that decide anything
GUIDED = "{}, audio guidance {:g}"
# What the paper found, Sync-C of the first over the second: where, first, second.
CLAIMS = {
    "audio guidance 3 over 1, weights/tiny": ("+ 0.52", "tiny", "audio guidance 3.0", "audio guidance 1.0"),
    "audio guidance 4.5 over 3, weights/tiny": ("+ 0.45", "tiny", "audio guidance 4.5", "audio guidance 3.0"),
    "audio guidance 3 over 1": ("+ 0.52", "trained", GUIDED.format("base", 3), GUIDED.format("base", 1)),
    "audio guidance 4.5 over 3": ("+ 0.45", "trained", GUIDED.format("base", 4.5), GUIDED.format("base", 3)),
    "audio RoPE over none": ("+ 1.17", "trained", GUIDED.format("base", 3), GUIDED.format("without-rope", 3)),
    "the same, RoPE not started aligned": (
        "+ 1.17", "trained", GUIDED.format("rope-unaligned", 3), GUIDED.format("without-rope", 3)
    ),
    "image, editing and text over images alone": (
        "better, no figure", "trained", GUIDED.format("base", 3), GUIDED.format("image-only", 3)
    ),
    "the same, in video editing": (
        "better, no figure", "trained", "base, video editing", "image-only, video editing"
    ),
    "mask loss over none": (
        "better, no figure", "trained", GUIDED.format("base", 3), GUIDED.format("without-mask-loss", 3)
    ),
}  # fmt: skip
PAPER = """| paper, 14 billion weights | Sync-C ↑ | Sync-D ↓ | IQA ↑ | ASE ↑ |
| --- | --- | --- | --- | --- |
| audio guidance 1 | 5.78 | 9.65 | 4.58 | 3.02 |
| audio guidance 3 | 6.30 | 8.78 | 4.45 | 2.91 |
| audio guidance 4.5 | 6.75 | 8.32 | 4.42 | 2.91 |
| without audio RoPE | 5.58 | 9.75 | 4.35 | 2.82 |
"""
INTRODUCTION = """# Ablations

Written by `make ablations`. The paper's are of its full model on its own benchmark. Ours are tiny, and their Sync-C and
Sync-D are by our own sync expert, on another scale: only rows of one table compare. IQA and ASE need
q-future/one-align, which was not at hand.

"""


def report(figures: dict[str, Any], fusion: Path) -> str:
    """Markdown: the paper's Table 3, ours in its columns with what tells more at our scale, and what agrees."""
    text = INTRODUCTION + PAPER
    if "tiny" in figures:
        people = len(figures["tiny"]["true video"]["sync_c"])
        text += f"\n## weights/tiny: {people} held-out drawn people and voices of 4 s, heads still\n\n"
        text += table(figures["tiny"], JAW)
    if "trained" in figures:
        text += "\n## Trained for it: recipes/ablations\n\n" + trained(figures)
    return text + "\n## Agrees with the paper?\n\n" + agreement(figures) + "\n" + others(figures, fusion)


def trained(figures: dict[str, Any]) -> str:
    data = figures["data"]
    return (
        f"{data['train']} clips, {data['steps']} steps of {data['batch']}, one seed, "
        f"{data['weights'] / 1e6:.2f} million weights; mouths of 48 pixels, 33 frames.\n{data['test']} held-out clips "
        "(sentences, and people, never trained on). “Own voice against another's”: by how much\neq. 1 on the lips at "
        "t = 0.9 is larger with another clip's voice.\n\n" + table(figures["trained"], LIPS)
    )


def table(rows: dict[str, dict[str, list[float]]], more: dict[str, str]) -> str:
    columns = COLUMNS | more
    lines = [["ours", *columns], ["---"] * (len(columns) + 1)]
    for title, row in rows.items():
        lines.append([title, *(f"{np.mean(row[name]):.3f}" if name in row else "—" for name in columns.values())])
    return _lines(lines)


def agreement(figures: dict[str, Any]) -> str:
    """Differences of the same clips with their 95 % bootstrap intervals; one that contains 0 decides nothing."""
    lines = [["what", "paper, Sync-C", "ours, Sync-C", "agrees?", "ours, lips (dB) or jaw (r)"], ["---"] * 5]
    for what, (paper, where, first, second) in CLAIMS.items():
        rows = figures.get(where, {})
        if first not in rows or second not in rows:
            lines.append([what, paper, "not run", "—", "—"])
            continue
        sync = difference(rows, first, second, "sync_c")
        verdict = "yes" if sync.low > 0 else "no" if sync.high < 0 else "not decided"
        verdict = verdict if sync.count >= FEWEST else f"not decided by {sync.count} clips"
        beside = difference(rows, first, second, "jaw_r" if where == "tiny" else "lips")
        lines.append([what, paper, _signed(sync), verdict, _signed(beside)])
    return _lines(lines)


def difference(rows: dict[str, dict[str, list[float]]], first: str, second: str, metric: str) -> Estimate:
    estimate = mean_estimate(np.subtract(rows[first][metric], rows[second][metric]))
    assert estimate is not None
    return estimate


def others(figures: dict[str, Any], fusion: Path) -> str:
    """What is no matter of training: how windows meet (Figure 7), and TeaCache and USP (Table 4)."""
    told = json.loads(fusion.read_text())
    jumps = {row["what"].split(":")[0]: row["value"] for row in told["rows"] if row["what"].endswith("median")}
    names, values = list(jumps), [f"{value:.2f}" for value in jumps.values()]
    text = f"## BLF (Figure 7), {told['seconds']:g} s of weights/tiny, {told['date']}\n\n" + _lines(
        [
            ["windows meet", *names],
            ["---"] * (len(names) + 1),
            ["jump at their borders, over the median elsewhere", *values],
        ]
    )
    text += (
        "\nThe paper shows pictures: jumps without an overlap, fewer with one direction, none with both. More in "
        "[fusion.md](fusion.md).\n"
    )
    if "denoising" not in figures:
        text += "\n## TeaCache and USP (Table 4)\n\nNot run here; "
        return text + "TeaCache alone: [performance.md](../performance.md).\n"
    seconds = figures["denoising"]
    text += (
        "\n## TeaCache and USP (Table 4)\n\nThe example's voice with weights/tiny, 50 steps, audio guidance 4.5, "
        "seconds of the loop. Both processes shared\none core, so the second only costs here; two GPUs were not at "
        "hand.\n\n"
    )
    lines = [["", "paper, 1 GPU", "2 GPUs (USP)", "ours, 1 process", "2 processes (Ulysses), one core"], ["---"] * 5]
    for title, cache, paper in (
        ("without TeaCache", "none", ["23.62 min", "17.90 min"]),
        ("with TeaCache (α = 0.3)", "teacache", ["8.96 min", "7.18 min"]),
    ):
        lines.append([title, *paper, *(f"{seconds[f'{cache} {processes}']:.1f} s" for processes in (1, 2))])
    return text + _lines(lines)


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _lines(lines: list[list[str]]) -> str:
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
