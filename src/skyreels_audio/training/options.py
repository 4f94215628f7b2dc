"""What every recipe shares: strictness, and the optimiser with what surrounds it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimisation(Strict):
    """AdamW and what surrounds it. Steps and batch are what differs between a laptop and a cluster."""

    steps: int
    batch: int  # samples of one step, over all processes and accumulated parts
    accumulation: int = Field(default=1, ge=1)  # parts that a process computes one after the other
    learning_rate: float
    schedule: Literal["cosine", "constant"] = "cosine"  # after the warm-up
    warmup_steps: int = 100
    final_learning_rate: float = 0.1  # of learning_rate, reached by the cosine at the last step
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of computing; weights that are trained stay float32
    compile: bool = False
    parallel: Literal["fsdp", "ddp"] = "fsdp"  # how several processes share: weights in shards, or a copy each
    context_parallel: int = Field(default=1, ge=1)  # processes that share the tokens of each sample: long clips
    gradient_checkpointing: bool = False  # blocks are computed again on the way back
    activation_offload: bool = False  # what the way back needs waits in the memory of the host
    save_every: int = 500
    keep: int = Field(default=2, ge=1)  # states; an older one is there if the newest is damaged
    sample_every: int = 1000
    log_every: int = 20
    tracker: Literal["tensorboard", "trackio", "wandb", "none"] = "tensorboard"  # beside metrics.jsonl
    spike: float | None = Field(default=30.0, gt=1)  # a gradient this many times the median of the last ones is skipped
    bad_steps: int = Field(default=5, ge=1)  # so many skipped in a row, and the run goes back to its last state
