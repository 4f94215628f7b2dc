"""What a run was: everything needed to judge a video, and to make it again, as JSON beside it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from skyreels_audio import __version__
from skyreels_audio.media.files import replacing, writing

LIBRARIES = "torch", "diffusers", "transformers", "av", "numpy"  # whose versions can change a video's bytes


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_report(
    path: Path,
    inputs: Mapping[str, Path | None],
    output: Path,
    options: Mapping[str, Any],
    video: Mapping[str, Any],
    seconds: Mapping[str, float],
    changes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the report at ``path``; it appears whole or not at all.

    Args:
        inputs: the files given, by what they are; None where there is none.
        output: the finished video.
        options: everything that was asked for or came from defaults: checkpoint ("model", a folder), seed, ….
        video: size, frames and frame rate; the faces found in the source, its shots and who was followed in them;
            stretches of frames that keep their source.
        seconds: wall clock of each phase.
        changes: what was done to each of the inputs, as phrases.
    """
    done = changes or {}
    given = {name: file for name, file in inputs.items() if file is not None}
    report = {
        "version": __version__,
        "libraries": {name: version(name) for name in LIBRARIES},
        "inputs": {
            name: {"path": str(file), "sha256": sha256(file), "changes": list(done.get(name, []))}
            for name, file in given.items()
        },
        "options": dict(options),
        "output": {"path": str(output), "sha256": sha256(output), **video},
        "seconds": {phase: round(duration, 3) for phase, duration in seconds.items()},
    }
    with writing(path), replacing(path) as partial:
        text = json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n"
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # JSON's own escapes, for odd names
