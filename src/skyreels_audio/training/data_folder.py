"""What lies under ``data/``: where each part comes from, under which terms, and whether a folder holds exactly that."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from skyreels_audio.media import InputError
from skyreels_audio.training.manifest import file_hash


@dataclass(frozen=True)
class Part:
    """A folder or file of the list ``assets/data.yaml``.

    sha256: of a file; of a folder, that of its listing: a line ``SHA-256  path`` for every file, sorted by path, as
        ``find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`` says it inside the folder.
    """

    path: str
    files: int
    sha256: str
    source: str
    licence: str


def listed_parts() -> list[Part]:
    text = (files("skyreels_audio.training") / "assets" / "data.yaml").read_text()
    return [Part(**entry) for entry in yaml.safe_load(text)]


def digest(path: Path) -> tuple[int, str]:
    """How many files there are, and the SHA-256 that the list holds of them."""
    if path.is_file():
        return 1, file_hash(path)
    found = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    listing = "".join(f"{file_hash(file)}  {name}\n" for name, file in found)
    return len(found), hashlib.sha256(listing.encode()).hexdigest()


def check_data(folder: Path) -> list[tuple[Part, str | None]]:
    """Every part of the list, and what is wrong with it under ``folder``: None if it is what the list says.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder.")
    return [(part, _fault(part, folder / part.path)) for part in listed_parts()]


def _fault(part: Part, path: Path) -> str | None:
    if not path.exists():
        return "missing"
    count, found = digest(path)
    if count != part.files:
        return f"{count} files instead of {part.files}"
    return None if found == part.sha256 else "other contents"
