"""What ``generate`` writes: only files that it made itself are replaced or removed, besides the video it is told to."""

import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from skyreels_audio.rendering import SHEET_NOTE


@dataclass(frozen=True)
class Outputs:
    """The video, beside it its contact sheet, on request a report; while it is made, its state."""

    video: Path
    sheet: Path
    report: Path
    state: Path

    @classmethod
    def at(cls, video: Path, inputs: list[Path], report: bool = False) -> "Outputs":
        """Make sure that they can be written, are none of the inputs, and replace nothing of anyone else's."""
        from skyreels_audio.media import InputError

        if video.is_dir():
            raise InputError(f"{video} is a folder; --output names the file to write.")
        if video.suffix.lower() != ".mp4":
            raise InputError(f"{video} does not end in .mp4, the one format that is written.")
        outputs = cls(video, *(video.with_suffix(suffix) for suffix in (".png", ".json", ".state")))
        given = [_resolved(path) for path in inputs]
        for path in vars(outputs).values():
            if _resolved(path) in given:
                raise InputError(f"{path} is an input and would be overwritten; choose another --output.")
        if video.parent.exists() and not video.parent.is_dir():
            raise InputError(f"{video} cannot be written: {video.parent} is no folder.")
        try:
            video.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=video.parent).close()
            longest = os.pathconf(video.parent, "PC_NAME_MAX")
        except OSError as error:
            raise InputError(f"{video} cannot be written: {error.strerror}.") from None
        if max(len(os.fsencode(path.name)) for path in vars(outputs).values()) > longest:
            short = video.name[:40] + "…"
            raise InputError(f"{short} is too long a name: {longest} bytes must do for {outputs.state.suffix} too.")
        outputs._check_owners(report)
        return outputs

    def _check_owners(self, report: bool) -> None:
        from skyreels_audio.media import InputError, image_note

        kinds = [(self.sheet, "contact sheet", lambda path: image_note(path) == SHEET_NOTE)]
        kinds += [(self.state, "state", is_state)]
        kinds += [(self.report, "report", is_report)] if report else []
        for path, kind, ours in kinds:
            if os.path.lexists(path) and not (path.is_file() and ours(path)):
                raise InputError(f"{path} is in the way: it is no {kind} of this command; move it, or the --output.")


def _resolved(path: Path) -> Path:
    from skyreels_audio.media import InputError

    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL in the name
        raise InputError(f"{str(path)!r} is not a path: its links lead in a circle, or it is no name.") from None


def is_state(path: Path) -> bool:
    """Whether a file is the state of a run: torch's zip of a pickle, which is not read but looked into."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            data = archive.read(name)
    except (OSError, ValueError, zipfile.BadZipFile, StopIteration, NotImplementedError):
        return False
    return all(key in data for key in (b"inputs", b"finished", b"histories"))


def is_report(path: Path) -> bool:
    """Whether a file is a report of this command."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"version", "inputs", "options", "output"} <= data.keys()
