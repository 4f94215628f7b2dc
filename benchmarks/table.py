"""Rows of measured figures beside their bars, ceilings and baselines; as text and as Markdown."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure. `bar` is ("≥" or "≤", number); what could not be measured has no value and says why in `note`."""

    what: str
    value: float | None
    bar: tuple[str, float] | None = None
    ceiling: str = ""  # what the measure says of true videos
    baseline: str = ""  # and of what needs no model
    unit: str = ""
    digits: int = 2
    note: str = ""

    @property
    def passed(self) -> bool | None:
        if self.bar is None or self.value is None:
            return None
        return self.value >= self.bar[1] if self.bar[0] == "≥" else self.value <= self.bar[1]

    def cells(self) -> list[str]:
        measured = "—" if self.value is None else f"{self.value:.{self.digits}f}{self.unit}"
        bar = "reported" if self.bar is None else f"{self.bar[0]} {self.bar[1]:g}{self.unit}"
        verdict = {True: "yes", False: "no", None: ""}[self.passed]
        return [self.what, measured, bar, verdict, self.ceiling, self.baseline, self.note]


HEADER = ["what", "measured", "bar", "reached", "ceiling", "baseline", "how"]


def markdown(rows: Sequence[Row]) -> str:
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plain(rows: Sequence[Row]) -> str:
    """Columns for a terminal, without the last one, which is long."""
    lines = [line[:-1] for line in (HEADER, *(row.cells() for row in rows))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def with_stored(folder: Path, name: str, rows: Sequence[Row]) -> list[Row]:
    """The rows that `write` stored, those that were measured again in their places, what is new after them."""
    path, new = folder / f"{name}.json", {row.what: row for row in rows}
    known = [field.name for field in fields(Row)]
    stored = json.loads(path.read_text())["rows"] if path.exists() else []
    kept = [Row(**{key: row[key] for key in known}) for row in stored]
    return [new.pop(row.what, row) for row in kept] + list(new.values())


def write(folder: Path, name: str, title: str, rows: Sequence[Row], about: dict) -> None:
    """`folder/name.json` and `folder/name.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    record = about | {"rows": [asdict(row) | {"passed": row.passed} for row in rows]}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    facts = ", ".join(f"{key}: {value}" for key, value in about.items())
    (folder / f"{name}.md").write_text(f"# {title}\n\n{facts}\n\n{markdown(rows)}")


def write_section(path: Path, title: str, text: str) -> None:
    """Replace the section ``## title`` of a document, or add it at the end."""
    head, *sections = re.split(r"^(?=## )", path.read_text(), flags=re.MULTILINE)
    place = next((number for number, each in enumerate(sections) if each.startswith(f"## {title}\n")), len(sections))
    sections[place : place + 1] = [f"## {title}\n\n{text}"]
    path.write_text("\n\n".join(part.strip() for part in (head, *sections)) + "\n")
