"""People check samples of what each stage let through, until the rate of bad cases is known well enough.

Every answer is a row of out/audit/<reviewer>.jsonl, on disk before the next clip is shown. The last answer of a
reviewer on a clip at a stage counts.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Literal

from skyreels_audio.curation.recipe import Recipe, Stages
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.select import Verdict
from skyreels_audio.media import InputError

Decision = Literal["accept", "go on", "reject"]


@dataclass(frozen=True)
class Answer:
    """One look at one clip."""

    stage: str
    clip: str
    reviewer: str
    bad: bool
    why: str | None
    time: float


@dataclass(frozen=True)
class StageAudit:
    """What people found of a stage: how many of the clips they saw are bad, its 95 % interval, and what follows.

    A clip is bad if most of its reviewers say so; kappa is their agreement beyond chance, None for a single reviewer.
    """

    stage: str
    reviewed: int
    bad: int
    interval: tuple[float, float]
    decision: Decision
    kappa: float | None


class Answers:
    """The answers on disk."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "audit"

    def add(self, answer: Answer) -> None:
        if not re.fullmatch(r"[\w.-]{1,40}", answer.reviewer):
            raise InputError("A reviewer's name is 1 to 40 letters, digits, dots or dashes.")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{answer.reviewer}.jsonl").open("a") as file:
            file.write(json.dumps(asdict(answer)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def all(self) -> list[Answer]:
        """The answers that count; a line that a crash cut short is left out."""
        latest: dict[tuple[str, str, str], Answer] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text().splitlines():
                try:
                    answer = Answer(**json.loads(line))
                except (ValueError, TypeError):
                    continue
                latest[answer.stage, answer.clip, answer.reviewer] = answer
        return list(latest.values())


def passed(verdicts: Iterable[Verdict], stage: str) -> list[Clip]:
    """The clips that a stage and those before it let through."""
    order = list(Stages.model_fields)
    until = order.index(stage)

    def out_by(verdict: Verdict) -> int:
        first = verdict.reason.split(".")[0] if verdict.reason else None
        if first in order:
            return order.index(first)
        return len(order) if first in (None, "duplicates") else -1

    return [each.clip for each in verdicts if out_by(each) > until and stage in each.clip.stages]


def sample(clips: list[Clip], stage: str, reviewer: str, answers: list[Answer]) -> Clip | None:
    """The next clip for a reviewer: the same random order for all, so that several judge the same clips."""
    seen = {answer.clip for answer in answers if answer.stage == stage and answer.reviewer == reviewer}
    order = sorted(clips, key=lambda clip: clip.id)
    random.Random(f"{stage}").shuffle(order)
    return next((clip for clip in order if clip.id not in seen), None)


def wilson(bad: int, reviewed: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a rate; (0, 1) of nothing. Wilson, 1927."""
    if reviewed == 0:
        return 0.0, 1.0
    rate, square = bad / reviewed, z * z
    centre = (rate + square / (2 * reviewed)) / (1 + square / reviewed)
    half = z / (1 + square / reviewed) * sqrt(rate * (1 - rate) / reviewed + square / (4 * reviewed**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def decide(bad: int, reviewed: int, limit: float, most: int) -> Decision:
    """Accept when the rate of bad cases is surely below the limit; reject when surely above, or after ``most``."""
    low, high = wilson(bad, reviewed)
    if high <= limit:
        return "accept"
    return "reject" if low > limit or reviewed >= most else "go on"


def cohens_kappa(pairs: list[tuple[bool, bool]]) -> float | None:
    """Agreement of two reviewers beyond chance; None without clips that both saw. Cohen, 1960."""
    if not pairs:
        return None
    agree = sum(a == b for a, b in pairs) / len(pairs)
    first, second = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    chance = first * second + (1 - first) * (1 - second)
    return 1.0 if chance == 1 else (agree - chance) / (1 - chance)


def audit(stage: str, answers: list[Answer], recipe: Recipe) -> StageAudit:
    """What the answers on a stage come to."""
    by_clip: dict[str, dict[str, bool]] = {}
    for answer in answers:
        if answer.stage == stage:
            by_clip.setdefault(answer.clip, {})[answer.reviewer] = answer.bad
    bad = sum(2 * sum(votes.values()) >= len(votes) for votes in by_clip.values())
    reviewers = sorted({name for votes in by_clip.values() for name in votes})
    kappas = [
        kappa
        for index, first in enumerate(reviewers)
        for second in reviewers[index + 1 :]
        if (kappa := cohens_kappa([(v[first], v[second]) for v in by_clip.values() if first in v and second in v]))
        is not None
    ]
    review = recipe.review
    decision = decide(bad, len(by_clip), review.bad_rate, review.most)
    kappa = sum(kappas) / len(kappas) if kappas else None
    return StageAudit(stage, len(by_clip), bad, wilson(bad, len(by_clip)), decision, kappa)


def now() -> float:
    return time.time()
