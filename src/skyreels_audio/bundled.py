"""Where the files are that ship with the project: the default checkpoint and the examples."""

from pathlib import Path


def bundled(path: str) -> Path:
    """The file or folder ``path`` of the project, e.g. ``"weights/tiny"``: in the installed wheel or in the clone."""
    package = Path(__file__).parent
    installed = package / "_bundled" / path
    return installed if installed.exists() else package.parents[1] / path
