"""The paper's tables beside our figures, each with the command that makes it again: docs/results/tables.md.

python benchmarks/tables.py
"""

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


def main() -> None:
    tables = yaml.safe_load((Path(__file__).parent / "paper_tables.yaml").read_text())
    text = "# The paper's tables and ours\n\n" + "\n".join(map(render, tables))
    text += (
        "\nThe paper has four tables. A cell of ours that is empty says why; nothing stands in for what did not run.\n"
    )
    (RESULTS / "tables.md").write_text(text)
    print(text)


def render(table: dict[str, Any]) -> str:
    columns = table["columns"]
    lines = [["method", *columns, "command, or where it is from"], ["---"] * (len(columns) + 2)]
    lines += [[name, *(f"{value:.2f}" for value in values), "paper"] for name, values in table["paper"].items()]
    notes = []
    for ours in table["ours"]:
        path = RESULTS / ours.get("file", "none")
        command = f"`{ours['command']}`"
        if not path.is_file():
            lines.append([f"ours: {ours['name']}", *["—"] * len(columns), f"{command}; {ours['empty']}"])
            continue
        found = json.loads(path.read_text())
        for system, name in (("generated", f"ours: {ours['name']}"), ("ground truth", "ground truth of that")):
            lines.append([name, *(cell(found["systems"][system].get(metric)) for metric in columns.values()), command])
        reasons = {found["not_run"][metric] for metric in columns.values() if metric in found["not_run"]}
        notes += [f"- empty in “{ours['name']}”: {reason}" for reason in sorted(reasons)]
        if "sync_c" in found["systems"]["generated"] and "syncnet" not in found["weights"]:
            notes.append(
                f"- “{ours['name']}”: Sync-C and Sync-D by our own sync expert, on another scale than SyncNet's"
            )
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"## Table {table['table']}: {table['title']}\n\n{body}\n\n" + "".join(f"{note}\n" for note in notes)


def cell(estimate: dict[str, float] | None) -> str:
    return "—" if estimate is None else f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


if __name__ == "__main__":
    main()
