"""A training that takes milliseconds: a line through noisy points."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skyreels_audio.training.options import Optimisation

BAD = float("nan")


class LineTask:
    """Samples are points of y = 2x + 1 with noise; ``spoilt`` says at which steps the loss is not a number."""

    def __init__(self, spoilt: frozenset[int] = frozenset(), scale: dict[int, float] | None = None, wait: float = 0):
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"line": nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))})
        self.spoilt, self.scale, self.wait = spoilt, scale or {}, wait
        self.seen: list[int] = []

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        time.sleep(self.wait)
        self.seen.append(step)
        x = torch.randn(16, 1)
        loss = (self.modules["line"](x) - 2 * x - 1 - 0.1 * torch.randn(16, 1)).square().mean()
        loss = loss * self.scale.get(step, 1.0)
        return loss * (BAD if step in self.spoilt else 1), {"points": 16.0}

    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        assert not averaged["line"].training
        x = torch.linspace(-1, 1, 9)[:, None]
        return {"held_out/error": float((averaged["line"](x) - 2 * x - 1).square().mean().detach())}

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        folder.mkdir()


class PartsTask:
    """One linear layer on points that follow from step and sample; the batch may be divided."""

    def __init__(self, batch: int) -> None:
        torch.manual_seed(0)
        self.modules, self.batch = nn.ModuleDict({"line": nn.Linear(3, 1)}), batch

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        return self.part_of_loss(step, range(self.batch))

    def part_of_loss(self, step: int, samples: range) -> tuple[Tensor, dict[str, float]]:
        points = [torch.randn(3, generator=torch.Generator().manual_seed(1000 * step + i)) for i in samples]
        x = torch.stack(points)
        return (self.modules["line"](x) - x.sum(1, keepdim=True)).square().mean(), {}

    def evaluate(self, averaged: nn.ModuleDict, step: int) -> dict[str, float]:
        return {}

    def export(self, averaged: nn.ModuleDict, folder: Path) -> None:
        folder.mkdir()


def options(**given: Any) -> Optimisation:
    usual = {"steps": 40, "batch": 16, "learning_rate": 0.01, "warmup_steps": 5, "precision": "float32"}
    usual |= {"save_every": 10, "sample_every": 20, "log_every": 2, "tracker": "none"}
    return Optimisation(**usual | given)
