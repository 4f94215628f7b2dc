"""Recipes: every run is one YAML file, read strictly."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from skyreels_audio.media import InputError
from skyreels_audio.training.motion.recipe import (
    MotionRecipe,
    PortraitAutoencoderRecipe,
    PortraitRecipe,
    SpeechMotionRecipe,
)
from skyreels_audio.training.options import Optimisation, Strict


class SyncRecipe(Strict):
    """Train the sync expert on the clips of manifests; a tenth of the files, by their hash, is held out."""

    task: Literal["sync"]
    output: Path
    seed: int = 0
    manifests: list[Path]
    strangers: list[Path] = []  # manifests of people that no other has, only measured on
    model: dict[str, Any] = {}  # of SyncNet
    windows: int = 6  # of a clip, evenly apart
    temperature: float = 0.07
    optimisation: Optimisation


class Quality(Strict):
    """Which clips are good enough from a step on: coarse first, fine later (paper, section 3.1)."""

    from_step: int = 0
    confidence: float | None = None  # at least this, by the manifest's sync expert; None takes unjudged clips too


class Curriculum(Strict):
    """What one training step makes of a clip (paper, section 2.3). Shares are of samples and sum to 1."""

    image: float = Field(default=1.0, ge=0)  # image animation: the first frame is given
    editing: float = Field(default=0.0, ge=0)  # video editing: all but the lower face is given
    text: float = Field(default=0.0, ge=0)  # nothing is given
    drop: float = Field(default=0.15, ge=0, le=1)  # reference (of editing too), audio and text, each independently
    quality: list[Quality] = [Quality()]

    @model_validator(mode="after")
    def _is_whole(self) -> "Curriculum":
        if abs(self.image + self.editing + self.text - 1) > 1e-6:
            raise ValueError(f"image, editing and text sum to {self.image + self.editing + self.text:g}, not to 1")
        starts = [quality.from_step for quality in self.quality]
        if starts[:1] != [0] or starts != sorted(set(starts)):
            raise ValueError("quality begins from_step 0 and goes up")
        return self


class Loss(Strict):
    """How the error of the velocity is weighed. The defaults are eq. 1 as printed: uniform t, plain mean square."""

    time_shift: float = Field(default=1.0, gt=0)  # t' = s·t / (1 + (s-1)·t); 1 is uniform
    time_one: float = Field(default=0.0, ge=0, le=1)  # share of samples at pure noise
    sigma_weight: Literal["none", "capped"] = "none"  # "capped": min(1, 4t²), the error of the clean latent near noise
    known_weight: float = Field(default=1.0, ge=0)  # w1 of eq. 2, on what is given
    unknown_weight: float = Field(default=1.0, ge=0)  # w2 of eq. 2, on what is to be invented
    mask_gate: float = Field(default=0.0, ge=0, le=1)  # p_mask of L_face: how often the lips alone count
    motion_weight: float = Field(default=0.0, ge=0)  # how much more counts what moves as much as the clip on average
    sync_weight: float = Field(default=0.0, ge=0)  # of the sync expert's loss, on samples that hear (`lip_sync.py`)
    sync_latents: int = Field(default=9, ge=3)  # so many are decoded for it
    mean: Literal["everywhere", "region"] = "everywhere"  # "region": over the weights' sum, so that small lips count


class Lora(Strict):
    """Train low-rank adapters of the backbone instead of its weights."""

    rank: int = Field(default=16, ge=1)
    alpha: int = 16
    targets: str = r"blocks\.\d+\.((attn1|attn2|audio_attn)\.(to_q|to_k|to_v|to_out\.0)|ffn\.net\.(0\.proj|2))"


class FlowRecipe(Strict):
    """Train the transformer of a model folder by flow matching on clips that `precompute` encoded."""

    task: Literal["flow"]
    output: Path
    seed: int = 0
    model: Path  # a model folder, as `convert` and `train` write them
    data: list[Path]  # folders that `precompute` wrote with the encoders of this model
    train: Literal["audio", "all", "lora"] = "audio"  # the layers that hear; everything; adapters
    lora: Lora = Lora()
    align_audio: float | None = None  # start a fresh audio branch around its own time, ± so many tokens of 20 ms
    curriculum: Curriculum = Curriculum()
    loss: Loss = Loss()
    held_out_batches: int = 4  # for the losses by time and by task; 0: none
    samples: list[Path] = []  # clips not trained on: of their first frames and sound videos are made, `output`/samples
    generation_defaults: dict[str, Any] = {}  # of the exported folder, beside the model's own
    optimisation: Optimisation


Recipe = Annotated[
    MotionRecipe | SpeechMotionRecipe | PortraitAutoencoderRecipe | PortraitRecipe | SyncRecipe | FlowRecipe,
    Field(discriminator="task"),
]


class _File(BaseModel):
    recipe: Recipe


def read_recipe(path: Path, changes: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe. One that ``extends`` another file, named beside it, replaces the entries that it names.

    Args:
        path: the YAML file.
        changes: entries to replace, by dotted name (``{"optimisation.steps": 10}``).

    Raises:
        InputError: says what is the first thing wrong with it.
    """
    entries = _entries(Path(path))
    for name, value in (changes or {}).items():
        *sections, last = name.split(".")
        section = entries
        for part in sections:
            section = section.setdefault(part, {}) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise InputError(f"--set {name}: {'.'.join(sections)} is no section of {path}.")
        section[last] = value
    try:
        recipe = _File(recipe=entries).recipe
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][2:]) or "the recipe"
        raise InputError(f"{path}: {where}: {first['msg']}.") from None
    if isinstance(recipe, SpeechMotionRecipe | PortraitRecipe):
        _check_text_encoder(path, recipe.text_encoder)
    return recipe


def _check_text_encoder(path: Path, given: dict[str, Any]) -> None:
    """Raises InputError: a configuration is not that of UMT5."""
    from transformers import UMT5Config

    unknown = given.keys() - UMT5Config().to_dict().keys()
    if unknown or "d_model" not in given:
        wrong = f"there is no {', '.join(sorted(unknown))}" if unknown else "d_model is missing"
        raise InputError(f"{path}: text_encoder: it is UMT5, by the entries of its configuration; {wrong}.")


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
