"""What an evaluation found, for people: a Markdown table, and a page of videos side by side, worst cases first."""

import html
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skyreels_audio.evaluation.cases import Case
from skyreels_audio.evaluation.evaluate import Evaluation, write_json
from skyreels_audio.evaluation.metrics import METRICS
from skyreels_audio.evaluation.statistics import Estimate
from skyreels_audio.media.files import replacing, writing

WORST_BY = ("sync_c", "lips_r", "voice_r")  # the first of them that clips have; the least comes first
SHOWN = ("sync_c", "sync_d", "lips_r", "lips_lag", "lip_distance", "voice_r", "identity", "mouth_sharpness", "psnr")
COLOURS = {"lips": "#0b62a4", "true lips": "#c05800", "voice": "#7a7a7a"}
WIDTH, HEIGHT = 640, 90  # of a curve, in units of its drawing
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; } td, th { padding: .2rem .7rem; border-bottom: 1px solid #ccc; text-align: left; }
td:nth-child(3), td:nth-child(4) { white-space: nowrap; }
video { width: 20rem; max-width: 100%; } figure { display: inline-block; margin: 0 1rem 0 0; vertical-align: top; }
section { border-top: 2px solid #888; margin-top: 2rem; } .why { color: #555; }
"""


def write_report(evaluation: Evaluation, cases: list[Case], generated: Path, out: Path) -> None:
    """``metrics.json``, ``metrics.md`` and ``index.html`` in the folder ``out``."""
    record = asdict(evaluation)
    for clip in record["clips"]:  # curves stay in the clips' own files
        for part in ("video", "truth"):
            clip.get(part, {}).pop("curves", None)
    write_json(out / "metrics.json", record)
    for name, text in (("metrics.md", markdown(evaluation)), ("index.html", page(evaluation, cases, generated, out))):
        with writing(out / name), replacing(out / name) as partial:
            partial.write_text(text)


def rows(evaluation: Evaluation) -> list[list[str]]:
    """A row per metric: title, better, generated, ground truth, clips, remark."""
    found = []
    own, true = evaluation.systems["generated"], evaluation.systems["ground truth"]
    for name, metric in METRICS.items():
        if name not in own and name not in true and name not in evaluation.not_run:
            continue
        title = metric.title + (f" ({metric.unit})" if metric.unit else "") + (" *(proxy)*" if metric.proxy else "")
        if name.startswith("sync_") and name in own and "syncnet" not in evaluation.weights:
            title += " *(our sync expert, not SyncNet: another scale)*"
        truth = "by definition" if metric.compares and true else _cell(true.get(name), metric.digits)
        remark = f"not run: {evaluation.not_run[name]}" if name in evaluation.not_run else ""
        count = str(own[name].count) if name in own else ""
        found.append([title, metric.better, _cell(own.get(name), metric.digits), truth, count, remark])
    return found


def _cell(estimate: Estimate | None, digits: int) -> str:
    return "—" if estimate is None else estimate.text(digits)


HEADER = ["metric", "better", "generated", "ground truth", "clips", "remark"]


def markdown(evaluation: Evaluation) -> str:
    protocol = evaluation.protocol
    errors = [clip for clip in evaluation.clips if "error" in clip]
    lines = [
        f"# Evaluation by protocol `{protocol['name']}`",
        "",
        f"{len(evaluation.clips) - len(errors)} clips of up to {protocol['frames']} frames at {protocol['fps']:g} fps, "
        f"{protocol['width']}×{protocol['height']}; means with 95 % bootstrap intervals; → like the ground truth's.",
        "",
        *("| " + " | ".join(line) + " |" for line in (HEADER, ["---"] * len(HEADER), *rows(evaluation))),
        "",
        *(
            f"- weights of {name}: {file['file']}, SHA-256 {file['sha256']}"
            for name, file in evaluation.weights.items()
        ),
        "- " + ", ".join(f"{name} {number}" for name, number in evaluation.versions.items()),
        *(f"- not measured: {clip['name']}: {clip['error']}" for clip in errors),
    ]
    if evaluation.absent:
        lines.append(f"- without a video: {', '.join(evaluation.absent)}")
    return "\n".join(lines) + "\n"


def page(evaluation: Evaluation, cases: list[Case], generated: Path, out: Path) -> str:
    """One HTML file that shows the videos where they lie, by paths relative to ``out``."""
    by_name = {case.name: case for case in cases}
    head = "".join(f'<th scope="col">{each}</th>' for each in HEADER)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows(evaluation))
    whole = [clip for clip in evaluation.clips if "error" not in clip]
    order = next((name for name in WORST_BY if any(name in clip["video"]["values"] for clip in whole)), WORST_BY[-1])
    whole.sort(key=lambda clip: clip["video"]["values"].get(order, -1e9))
    errors = "".join(
        f"<li>{_text(clip['name'])}: {_text(clip['error'])}</li>" for clip in evaluation.clips if "error" in clip
    )
    sections = "".join(_section(clip, by_name[clip["name"]], generated, out) for clip in whole)
    name = _text(evaluation.protocol["name"])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Evaluation: {name}</title>'
        f"<style>{STYLE}</style></head><body><main><h1>Evaluation by protocol {name}</h1>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        + (f"<h2>Not measured</h2><ul>{errors}</ul>" if errors else "")
        + f"<h2>Clips, worst first by {_text(METRICS[order].title)}</h2>{sections}</main></body></html>\n"
    )


def _section(clip: dict[str, Any], case: Case, generated: Path, out: Path) -> str:
    videos = [("generated", generated / f"{case.name}.mp4"), ("ground truth", case.truth)]
    figures = "".join(
        f'<figure><video controls preload="metadata" src="{html.escape(os.path.relpath(path, out))}"></video>'
        f"<figcaption>{caption}</figcaption></figure>"
        for caption, path in videos
        if path is not None
    )
    values = clip["video"]["values"]
    told = ", ".join(f"{METRICS[n].title} {values[n]:.{METRICS[n].digits}f}" for n in SHOWN if n in values)
    prompt = f"<p>{_text(case.prompt)}</p>" if case.prompt else ""
    curves = clip["video"]["curves"]
    return f"<section><h3>{_text(case.name)}</h3>{figures}{prompt}<p>{_text(told)}</p>{curve_drawing(curves)}</section>"


def curve_drawing(curves: dict[str, list[float]]) -> str:
    """Lips against voice, each over its own range: an SVG with a legend."""
    known = {name: values for name, values in curves.items() if len(values) > 1}
    lines, legend = [], []
    for name, values in known.items():
        low, high = min(values), max(values)
        points = " ".join(
            f"{WIDTH * k / (len(values) - 1):.1f},{HEIGHT - HEIGHT * (v - low) / max(high - low, 1e-9):.1f}"
            for k, v in enumerate(values)
        )
        lines.append(f'<polyline fill="none" stroke="{COLOURS[name]}" stroke-width="1.5" points="{points}"/>')
        legend.append(f'<span style="color:{COLOURS[name]}">■</span> {name}')
    drawing = (
        f'<svg role="img" aria-label="{" and ".join(known)} over time" viewBox="0 0 {WIDTH} {HEIGHT}" width="100%">'
    )
    return f"<p>{' '.join(legend)}</p>{drawing}{''.join(lines)}</svg>"


def _text(value: str) -> str:
    return html.escape(value.replace("*", ""))
