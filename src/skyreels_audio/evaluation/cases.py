"""What belongs to a generated video: the true clip, the voice and the picture that drove it, its phonemes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from skyreels_audio.media import InputError
from skyreels_audio.media.files import replacing, writing

INDEX = "cases.json"


@dataclass(frozen=True)
class Case:
    """One case of a reference folder; what there is not is None. Paths lie in that folder."""

    name: str
    truth: Path | None = None  # a video with its sound; in editing also the source
    voice: Path | None = None  # a sound file, or a video with sound
    portrait: Path | None = None  # a picture
    phonemes: Path | None = None  # JSON: [[start s, end s, IPA], …]
    prompt: str | None = None

    @property
    def sound(self) -> Path | None:
        """Where the driving voice is."""
        return self.voice or self.truth


def read_cases(folder: Path) -> list[Case]:
    """The cases of a reference folder, in order of their names.

    Either ``cases.json`` lists them, or every NAME.mp4 is a true clip, with NAME.png, NAME.wav and NAME.phonemes.json
    beside it where there are any. Raises InputError if there is no case.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.")
    if (folder / INDEX).exists():
        try:
            rows = json.loads((folder / INDEX).read_text())["cases"]
            cases = [_case(folder, row) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / INDEX} is not a list of cases ({error}).") from None
    else:
        cases = []
        for path in folder.glob("*.mp4"):
            voice, portrait, phonemes = (
                found if (found := folder / f"{path.stem}{suffix}").exists() else None
                for suffix in (".wav", ".png", ".phonemes.json")
            )
            cases.append(Case(path.stem, path, voice, portrait, phonemes))
    if not cases:
        raise InputError(f"{folder} holds no cases: neither {INDEX} nor videos (*.mp4).")
    return sorted(cases, key=lambda case: case.name)


def _case(folder: Path, row: dict) -> Case:
    paths = {key: folder / row[key] for key in ("truth", "voice", "portrait", "phonemes") if row.get(key)}
    unknown = row.keys() - {field.name for field in fields(Case)}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]}")
    return Case(row["name"], prompt=row.get("prompt"), **paths)


def write_cases(folder: Path, cases: Sequence[Case], **about: object) -> None:
    """Write ``cases.json``, with whatever else is to be said about them."""
    rows = []
    for case in cases:
        row = {field.name: getattr(case, field.name) for field in fields(Case)}
        known = {key: value for key, value in row.items() if value is not None}
        rows.append({k: str(v.relative_to(folder)) if isinstance(v, Path) else v for k, v in known.items()})
    path = folder / INDEX
    with writing(path), replacing(path) as partial:
        partial.write_text(json.dumps(about | {"cases": rows}, indent=1, ensure_ascii=False) + "\n")
