"""What every recipe shares: strictness, and the optimiser with what surrounds it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimisation(Strict):
    """AdamW and what surrounds it. Steps and batch are what differs between a laptop and a GPU."""

    steps: int
    batch: int
    learning_rate: float
    warmup_steps: int = 100
    final_learning_rate: float = 0.1  # of learning_rate, reached by a cosine at the last step
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = False
    save_every: int = 500
    sample_every: int = 1000
    log_every: int = 20
