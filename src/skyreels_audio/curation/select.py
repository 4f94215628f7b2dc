"""Which clips are kept: limits over the rows, duplicates across the pool, verdicts of people; the manifest of the kept.

Nothing is measured here, so that another threshold costs seconds.

out/selection.parquet  one row per clip: kept or not, the first reason, all reasons
out/manifest.parquet   the kept clips as training reads them
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skyreels_audio.curation.fingerprint import near_duplicates
from skyreels_audio.curation.recipe import Recipe, Stages
from skyreels_audio.curation.schema import ARRAYS, COLUMNS, Clip, arrow_schema, from_table
from skyreels_audio.curation.storage import Folder
from skyreels_audio.curation.worker import missing
from skyreels_audio.media import InputError

ERROR, DUPLICATE, UNSCORED = "error", "duplicates.of", "unscored"


@dataclass(frozen=True, eq=False)
class Verdict:
    """What becomes of a clip. reasons: every limit that it fails, in the order of the stages; () if it is kept."""

    clip: Clip
    reasons: tuple[str, ...] = ()
    duplicate_of: str | None = None

    @property
    def kept(self) -> bool:
        return not self.reasons

    @property
    def reason(self) -> str | None:
        """The first one, by which the clip counts in the funnel; "stage.error" for what went wrong there."""
        return self.reasons[0] if self.reasons else None


def read_rows(out: Folder, columns: Iterable[str]) -> list[Clip]:
    """The rows of a curation, with these columns and those that identify a clip; the others are None.

    Of a source that changed since, only the rows of what it is now.
    """
    import pyarrow.dataset

    files = [f"{out.root}/{name}" for name in out.files("rows") if name.endswith(".parquet")]
    if not files:
        raise InputError(f"{out.url} holds no scored clips.")
    rows = pyarrow.dataset.dataset(files, arrow_schema(), format="parquet", filesystem=out.fs)
    wanted = {"id", "source", "stages", "finished", *columns}
    clips = from_table(rows.to_table(columns=sorted(wanted)))
    latest: dict[str, tuple[float, str]] = {}  # of a file that changed, the rows of before stay in their own file
    for clip in clips:
        told = clip.finished or 0.0, clip.id.split("-")[0]
        latest[clip.source] = max(latest.get(clip.source, told), told)
    return sorted((clip for clip in clips if clip.id.split("-")[0] == latest[clip.source][1]), key=lambda clip: clip.id)


def select(rows: Iterable[Clip], recipe: Recipe) -> list[Verdict]:
    """The verdict on every row: error, limits, then duplicates of a clip that is kept."""
    verdicts = [Verdict(clip, _reasons(clip, recipe)) for clip in rows]
    if recipe.duplicates is None:
        return verdicts
    limits = recipe.duplicates
    twins = near_duplicates((each.clip for each in verdicts if each.kept), limits.video_bits, limits.audio_bits)
    return [
        Verdict(each.clip, (DUPLICATE,), twins[each.clip.id]) if each.clip.id in twins else each for each in verdicts
    ]


def _reasons(clip: Clip, recipe: Recipe) -> tuple[str, ...]:
    if clip.error is not None:
        return (f"{clip.error.split(':')[0]}.{ERROR}",)
    failed = [reason for stage in recipe.limits if stage in clip.stages for reason in recipe.failures(clip, stage)]
    if not failed and missing(clip, recipe):
        return (UNSCORED,)
    return tuple(failed)


def funnel(verdicts: Iterable[Verdict]) -> dict[str, tuple[float, dict[str, float]]]:
    """Stage → (hours that reach it, hours rejected there by reason); the last entry, "kept", has the rest.

    A source without clips counts with its own length, one that cannot be read with none.
    """
    hours: dict[str, dict[str, float]] = {
        name: {} for name in ("fetch", "quarantined", *Stages.model_fields, "duplicates")
    }
    left = 0.0
    for each in verdicts:
        seconds = each.clip.seconds if each.clip.seconds is not None else each.clip.source_seconds or 0.0
        left += seconds / 3600
        if each.reason is not None:
            reasons = hours.setdefault(each.reason.split(".")[0], {})
            reasons[each.reason] = reasons.get(each.reason, 0.0) + seconds / 3600
    table: dict[str, tuple[float, dict[str, float]]] = {}
    for stage, reasons in hours.items():
        table[stage] = left, reasons
        left -= sum(reasons.values())
    return table | {"kept": (left, {})}


def write_selection(verdicts: list[Verdict], out: Folder) -> None:
    import pyarrow as pa

    out.write_table(
        "selection.parquet",
        pa.Table.from_pylist(
            [
                {
                    "id": each.clip.id,
                    "source": each.clip.source,
                    "start": each.clip.start,
                    "end": each.clip.end,
                    "kept": each.kept,
                    "reason": each.reason,
                    "reasons": list(each.reasons),
                    "duplicate_of": each.duplicate_of,
                }
                for each in verdicts
            ],
            pa.schema(
                [("id", pa.string()), ("source", pa.string()), ("start", pa.float64()), ("end", pa.float64())]
                + [("kept", pa.bool_()), ("reason", pa.string()), ("reasons", pa.list_(pa.string()))]
                + [("duplicate_of", pa.string())]
            ),
        ),
    )


LIGHT = tuple(name for name in COLUMNS if name not in ARRAYS)
