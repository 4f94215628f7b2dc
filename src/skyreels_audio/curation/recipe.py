"""A curation as one YAML file: the stages' settings, the limits that decide, and what people review."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from skyreels_audio.curation.audio import Audio
from skyreels_audio.curation.caption import Caption
from skyreels_audio.curation.content import Content
from skyreels_audio.curation.fingerprint import Fingerprint
from skyreels_audio.curation.portrait import Portrait
from skyreels_audio.curation.quality import Quality
from skyreels_audio.curation.schema import COLUMNS, Clip
from skyreels_audio.curation.sources import Probe, Split
from skyreels_audio.curation.stage import Stage, Strict
from skyreels_audio.curation.synchrony import Synchrony
from skyreels_audio.media import InputError


class Limit(Strict):
    """What a column may be. A value that could not be measured fails, unless ``unknown`` lets it pass."""

    min: float | None = None
    max: float | None = None
    among: list[str | bool] | None = None
    unknown: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Limit:
        if self.min is None and self.max is None and self.among is None:
            raise ValueError("a limit has min, max or among")
        return self

    def allows(self, value: Any) -> bool:
        if value is None:
            return self.unknown
        if self.among is not None:
            return value in self.among
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        bounds = [f"{sign} {bound:g}" for sign, bound in (("≥", self.min), ("≤", self.max)) if bound is not None]
        return ", ".join(bounds if self.among is None else [f"one of {self.among}"])


class Stages(Strict):
    """All nine, in their order, cheap ones first; all but the first two may be left out (``null``)."""

    probe: Probe = Probe()
    split: Split = Split()
    quality: Quality | None = Quality()
    content: Content | None = Content()
    portrait: Portrait | None = Portrait()
    audio: Audio | None = Audio()
    synchrony: Synchrony | None = Synchrony()
    caption: Caption | None = Caption()
    fingerprint: Fingerprint | None = Fingerprint()

    def active(self) -> list[Stage]:
        """Those that run."""
        return [stage for name in type(self).model_fields if (stage := getattr(self, name)) is not None]


class Duplicates(Strict):
    """When two clips are the same material: both hashes are near."""

    video_bits: int = Field(default=14, ge=0, le=64)  # of 64, by which pictures of the same time may differ
    audio_bits: int = Field(default=12, ge=0, le=64)


class Review(Strict):
    """How far people check what each stage let through (paper: the rate of bad cases stays below 5 %)."""

    bad_rate: float = Field(default=0.05, gt=0, lt=1)
    most: int = Field(default=400, ge=1)  # answers after which an undecided stage is rejected


class Recipe(Strict):
    stages: Stages = Stages()
    limits: dict[str, dict[str, Limit]] = {}  # stage → column → limit
    duplicates: Duplicates | None = Duplicates()
    review: Review = Review()
    workers: int = Field(default=1, ge=1)
    timeout: float = Field(default=3600.0, gt=0)  # seconds without a result after which a source counts as crashed

    @field_validator("limits")
    @classmethod
    def _are_columns(cls, given: dict[str, dict[str, Limit]]) -> dict[str, dict[str, Limit]]:
        for stage, limits in given.items():
            if stage not in Stages.model_fields:
                raise ValueError(f"there is no stage {stage!r}; there are {', '.join(Stages.model_fields)}")
            for column in limits:
                if column not in COLUMNS:
                    raise ValueError(f"there is no column {column!r}")
        return {stage: given[stage] for stage in Stages.model_fields if stage in given}

    def failures(self, clip: Clip, stage: str | None = None) -> list[str]:
        """The limits, as "stage.column", that a clip's scores fail; of one stage, or of all."""
        stages = self.limits if stage is None else {stage: self.limits.get(stage, {})}
        return [
            f"{name}.{column}"
            for name, limits in stages.items()
            for column, limit in limits.items()
            if not limit.allows(getattr(clip, column))
        ]


def read_recipe(path: str | Path) -> Recipe:
    """Raises ``InputError`` that says what is the first thing wrong with it."""
    path = Path(path)
    try:
        entries = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a YAML file: {str(error).splitlines()[0]}.") from None
    try:
        return Recipe.model_validate(entries or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}.") from None
