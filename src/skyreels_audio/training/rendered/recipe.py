"""Recipes of training on rendered clips."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from skyreels_audio.training.options import Optimisation, Strict


class SpeechData(Strict):
    bank: Path  # where the speech bank is built, or found
    hours: float = 2.0
    whisper: Path
    layers: tuple[int, ...] = (3, 4)


class ClipShare(Strict):
    """One kind of training clip and how often it is drawn."""

    source: Literal["synthetic", "photograph", "video"]
    share: float = Field(gt=0)
    head: Literal["still", "slight", "lively"] = "still"
    blinks: bool = False
    expressions: bool = True


class ClipData(Strict):
    """What `precompute` renders and encodes."""

    folder: Path
    shards: int
    clips_per_shard: int = 32
    frames: int = 33
    size: int = 256
    workers: int = 2
    photographs: Path | None = None
    videos: Path | None = None
    kinds: list[ClipShare]
    held_out_shards: int = 2
    portrait_shards: int = 0  # of drawn people as single frames, for words without a picture
    portraits_per_shard: int = 256


class Curriculum(Strict):
    """What one training step sees of a clip (paper, section 2.3)."""

    drop: float = 0.15  # each condition independently
    channel_power: float = 1.0  # channels weigh std**power: 0 counts latents alike, 2 counts pixels
    mask_gate: float = 0.5  # p_mask: share of samples whose loss is taken on the lips alone
    lip_weight: float = 4.0
    sigma_shift: float = 5.0
    sigma_one: float = 0.3  # share of samples at pure noise
    latent_frames: int = 5
    # Shares of steps; the others animate a whole frame, or make it from words where its reference is dropped.
    editing: float = 0.7  # a region of an aligned face is to be invented, all else is given
    portrait: float = 0.25  # one frame from words
    eyes: float = 0.5  # share of the edited regions that reach up to the eyes


class ClipsRecipe(Strict):
    """Training of the transformer and the text encoder on precomputed latents and tokens."""

    output: Path
    seed: int = 0
    autoencoder: Path
    speech: SpeechData
    data: ClipData
    transformer: dict[str, Any]  # of SkyReelsAudioTransformer3DModel
    text_encoder: dict[str, Any]  # of UMT5Config
    initial: Path | None = None
    supervised_steps: int = 1500  # before the transformer trains: the audio projector on visemes, text on broad colours
    viseme_weight: float = 0.1
    curriculum: Curriculum = Curriculum()
    generation_defaults: dict[str, Any] = {}  # of the exported checkpoint, see generation.settings
    optimisation: Optimisation

    @field_validator("text_encoder")
    @classmethod
    def _is_umt5(cls, given: dict[str, Any]) -> dict[str, Any]:
        from transformers import UMT5Config

        unknown = given.keys() - UMT5Config().to_dict().keys()
        if unknown or "d_model" not in given:
            wrong = f"there is no {', '.join(sorted(unknown))}" if unknown else "d_model is missing"
            raise ValueError(f"the text encoder is UMT5, by the arguments of its configuration; {wrong}")
        return given

    @field_validator("generation_defaults")
    @classmethod
    def _are_settings(cls, given: dict[str, Any]) -> dict[str, Any]:
        from skyreels_audio.generation.settings import Settings

        try:
            Settings(**given)
        except TypeError as error:  # pydantic tells of values that are wrong, not of names
            raise ValueError(str(error)) from None
        return given


class RenderedFlowRecipe(ClipsRecipe):
    """Train by flow matching."""

    task: Literal["rendered-flow"]


class Distillation(Strict):
    """What the student of `DistilTask` learns, and from whom."""

    teacher: Path  # an exported checkpoint, which the student starts from
    steps: int = 4  # of the student
    teacher_steps: int = 3  # for each of the student's
    audio_guidance: float = 1.5  # of the teacher; the student needs none


class RenderedDistilRecipe(ClipsRecipe):
    """Teach a checkpoint to do in few steps what it does in many."""

    task: Literal["rendered-distil"]
    distillation: Distillation
