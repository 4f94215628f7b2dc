"""One static HTML page: the funnel, scores and their limits, what was kept and rejected, what 10 000 h would cost."""

from __future__ import annotations

import base64
import html
import io
import random
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from skyreels_audio.curation.recipe import Limit, Recipe
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.select import Verdict, funnel
from skyreels_audio.curation.storage import Folder, local_copy
from skyreels_audio.media import InputError
from skyreels_audio.media.span import read_span

SHEET = 12  # clips shown of what was kept, and of each reason
THUMBNAIL = 128  # pixels of a thumbnail's shorter side
POOL_HOURS = 10_000  # the paper's pool
DOLLARS_PER_CORE_HOUR = 0.04  # usual price of a virtual core on demand; GPUs are told in hours
COLOURS = ("#4878a8", "#c8674b", "#7a9e5f", "#b58bb5", "#d0a84f", "#6aa9a6", "#8b7765", "#9aa0a8")

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Curation</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}}
table{{border-collapse:collapse}}td,th{{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}}
td:first-child,th:first-child{{text-align:left}}figure{{display:inline-block;margin:.5em 1em .5em 0}}
figcaption{{font-size:13px;color:#555}}.sheet img{{height:96px;margin:2px;border-radius:3px}}
</style></head><body><h1>Curation</h1>
<p>{summary}</p>
<h2>Funnel</h2>{funnel}
<h2>Scores and limits</h2><p>Grey: all clips that were scored; the shaded part is rejected.</p>{histograms}
<h2>Kept and rejected</h2>{sheets}
<h2>Cost of {pool:,} hours</h2>{cost}
</body></html>"""


def write_report(verdicts: list[Verdict], recipe: Recipe, out: Folder, pictures: bool = True) -> None:
    """out/report.html. ``pictures``: with contact sheets, for which sources are read again."""
    hours = sum(each.clip.seconds or 0 for each in verdicts) / 3600
    kept = [each for each in verdicts if each.kept]
    kept_hours = sum(each.clip.seconds or 0 for each in kept) / 3600
    summary = (
        f"{len({each.clip.source for each in verdicts})} sources, {len(verdicts)} clips, {_hours(hours)}; "
        f"kept {len(kept)} clips, {_hours(kept_hours)}."
    )
    page = _PAGE.format(
        summary=summary,
        funnel=_funnel(verdicts),
        histograms=_histograms([each.clip for each in verdicts], recipe),
        sheets=_sheets(verdicts) if pictures else "",
        pool=POOL_HOURS,
        cost=_cost([each.clip for each in verdicts], recipe),
    )
    out.write("report.html", page.encode())


def _funnel(verdicts: list[Verdict]) -> str:
    """A bar per stage: what goes on, then what is rejected there, by reason."""
    table = {name: row for name, row in funnel(verdicts).items() if row[1] or name not in ("fetch", "quarantined")}
    total = max((hours for hours, _ in table.values()), default=0) or 1
    counts = Counter(each.reason for each in verdicts)
    bars, rows = [], []
    for line, (name, (hours, reasons)) in enumerate(table.items()):
        y, left = 34 * line, sum(reasons.values())
        parts = [(hours - left, "#b9c4cf", "goes on"), *((value, None, reason) for reason, value in reasons.items())]
        x = 150.0
        bars.append(f'<text x="140" y="{y + 18}" text-anchor="end">{html.escape(name)}</text>')
        for index, (value, colour, label) in enumerate(parts):
            width = 760 * value / total
            fill = colour or COLOURS[(index - 1) % len(COLOURS)]
            title = html.escape(f"{label}: {_hours(value)}")
            bars.append(
                f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="24" fill="{fill}">'
                f"<title>{title}</title></rect>"
            )
            x += width
        bars.append(f'<text x="{x + 6:.1f}" y="{y + 18}" fill="#555">{_hours(hours)}</text>')
        for reason, value in reasons.items():
            rows.append(f"<tr><td>{html.escape(reason)}</td><td>{counts[reason]}</td><td>{_hours(value)}</td></tr>")
    picture = (
        f'<svg viewBox="0 0 1050 {34 * len(table) + 6}" width="100%" font-size="14" role="img" '
        f'aria-label="Hours that reach each stage, and hours rejected there">{"".join(bars)}</svg>'
    )
    return f"{picture}<table><tr><th>reason</th><th>clips</th><th>time</th></tr>{''.join(rows)}</table>"


def _histograms(clips: list[Clip], recipe: Recipe) -> str:
    figures = []
    for stage, limits in recipe.limits.items():
        for column, limit in limits.items():
            values = [getattr(clip, column) for clip in clips]
            known = np.array([float(value) for value in values if isinstance(value, int | float)], float)
            if len(known) and limit.among is None:
                figures.append(_histogram(f"{stage}.{column}", known, limit))
    return "".join(figures)


def _histogram(name: str, values: np.ndarray, limit: Limit) -> str:
    edges = [bound for bound in (limit.min, limit.max) if bound is not None]
    low = min(float(np.percentile(values, 0.5)), *edges)
    high = max(float(np.percentile(values, 99.5)), *edges)
    margin = (high - low) * 0.05 or 1.0
    low, high = low - margin, high + margin
    counts, bins = np.histogram(values.clip(low, high), bins=40, range=(low, high))
    tallest, bars = counts.max() or 1, []
    for index, count in enumerate(counts):
        middle = (bins[index] + bins[index + 1]) / 2
        height = 70 * count / tallest
        fill = "#8a97a5" if limit.allows(middle) else "#dda79a"
        bars.append(f'<rect x="{6 * index}" y="{74 - height:.1f}" width="5.4" height="{height:.1f}" fill="{fill}"/>')
    for bound in edges:
        x = 240 * (bound - low) / (high - low)
        bars.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="76" stroke="#b03020" stroke-dasharray="3 2"/>')
    failing = sum(not limit.allows(value) for value in values.tolist())
    caption = f"{html.escape(name)} {html.escape(str(limit))}: {failing} of {len(values)} fail"
    ends = f'<text x="0" y="88">{low:.3g}</text><text x="240" y="88" text-anchor="end">{high:.3g}</text>'
    return (
        f'<figure><svg viewBox="0 0 240 92" width="250" font-size="11">{"".join(bars)}{ends}</svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _sheets(verdicts: list[Verdict]) -> str:
    groups: dict[str, list[Clip]] = {}
    for each in verdicts:
        groups.setdefault(each.reason or "kept", []).append(each.clip)
    parts = []
    for name in sorted(groups, key=lambda name: (name != "kept", name)):
        clips = [clip for clip in groups[name] if clip.width]
        shown = random.Random(name).sample(clips, min(SHEET, len(clips)))
        pictures = "".join(filter(None, map(_thumbnail, shown)))
        if pictures:
            parts.append(f'<h3>{html.escape(name)} ({len(groups[name])})</h3><div class="sheet">{pictures}</div>')
    return "".join(parts)


def _thumbnail(clip: Clip) -> str | None:
    """The middle frame; None if it cannot be read any more."""
    middle = (clip.start + clip.end) / 2
    try:
        with local_copy(clip.source) as path:
            frame = next(iter(read_span(path, middle, middle + 0.04, 25, THUMBNAIL)))
    except (OSError, InputError, StopIteration):
        return None
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG", quality=70)
    said = html.escape(f"{clip.source} {clip.start:.1f}–{clip.end:.1f} s. {clip.caption or ''}", quote=True)
    return (
        f'<img title="{said}" alt="{said}" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    )


def cost_table(clips: Iterable[Clip]) -> list[tuple[str, float, float]]:
    """(stage, processor seconds for an hour that reaches it, share of all hours that reach it)."""
    clips = list(clips)
    total = sum(clip.seconds or 0 for clip in clips)
    names = dict.fromkeys(name for clip in clips for name in clip.timings)
    table = []
    for name in names:
        reached = [clip for clip in clips if name in clip.timings and clip.seconds]
        seconds = sum(clip.seconds or 0 for clip in reached)
        if seconds:
            spent = sum(clip.timings[name] for clip in reached)
            table.append((name, spent / seconds * 3600, seconds / total))
    return table


def _cost(clips: Sequence[Clip], recipe: Recipe) -> str:
    rows, cores, gpus = [], 0.0, 0.0
    for name, seconds, share in cost_table(clips):
        needs = getattr(recipe.stages, name, None) or recipe.stages.probe
        hours = POOL_HOURS * share * seconds / 3600
        cores, gpus = cores + hours * needs.cpus, gpus + hours * needs.gpus
        rows.append(
            f"<tr><td>{name}</td><td>{seconds:.0f} s</td><td>{100 * share:.0f} %</td>"
            f"<td>{hours * needs.cpus:,.0f}</td></tr>"
        )
    head = "<tr><th>stage</th><th>processor time per hour of video</th><th>reaches it</th><th>core hours</th></tr>"
    said = f"{cores:,.0f} core hours (about ${cores * DOLLARS_PER_CORE_HOUR:,.0f} at ${DOLLARS_PER_CORE_HOUR} each)"
    if gpus:
        said += f" and {gpus:,.0f} GPU hours"
    return f"<table>{head}{''.join(rows)}</table><p>{said}, from this run's own time per stage.</p>"


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"
