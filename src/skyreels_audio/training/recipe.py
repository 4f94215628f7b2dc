"""Recipes: every run is one YAML file, read strictly."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from skyreels_audio.media import InputError
from skyreels_audio.training.options import Optimisation, Strict
from skyreels_audio.training.rendered.recipe import RenderedDistilRecipe, RenderedFlowRecipe


class AutoencoderRecipe(Strict):
    """Fit the Karhunen-Loève analysis in closed form, then train the synthesis by mean squared error."""

    task: Literal["autoencoder"]
    output: Path
    seed: int = 0
    videos: list[Path]  # folders of video files
    images: list[Path] = []  # folders of photographs, used as clips that hold still or drift
    clips: int = 2000
    frames: int = 9
    size: int = 256
    crop: int = 128
    latent_noise: float = 0.05  # of a channel's scale: what the synthesis must forgive the transformer
    model: dict[str, Any] = {}  # of CausalVideoAutoencoder
    initial: Path | None = None  # an exported autoencoder to go on from: its analysis, and so its latents, stay
    optimisation: Optimisation


Recipe = Annotated[AutoencoderRecipe | RenderedFlowRecipe | RenderedDistilRecipe, Field(discriminator="task")]


class _File(BaseModel):
    recipe: Recipe


def read_recipe(path: Path) -> AutoencoderRecipe | RenderedFlowRecipe | RenderedDistilRecipe:
    """Read a recipe. One that ``extends`` another file, named beside it, replaces the entries that it names.

    Raises:
        InputError: says what is the first thing wrong with it.
    """
    try:
        return _File(recipe=_entries(Path(path))).recipe
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise InputError(f"{path}: {where}: {first['msg']}.") from None


def _entries(path: Path) -> Any:
    try:
        entries = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not a YAML file: {error}") from None
    if isinstance(entries, dict) and "extends" in entries:
        return _entries(path.parent / entries.pop("extends")) | entries
    return entries
