"""A user study: who is asked what, in which order, and what the answers say.

Raters see one video at a time, not knowing whose it is, and answer two questions from 0 to 2, as the paper's 20 raters
did (§3.2). Answers are lines of ``answers.jsonl``, to which is only ever appended.
"""

import hashlib
import json
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from skyreels_audio.evaluation.statistics import LEVEL, Estimate, krippendorff_alpha
from skyreels_audio.media import InputError
from skyreels_audio.media.files import replacing, writing

QUESTIONS = {
    "consistency": "Do the mouth and the voice belong together?",
    "quality": "How good does the picture look?",
}
SCALE = {0: "bad", 1: "fair", 2: "good"}
CHECK_EVERY = 8  # videos between two attention checks
MOST_FAILED = 0.25  # of a rater's checks; with more their answers do not count
RESAMPLES = 2000


@dataclass(frozen=True)
class Item:
    """One page for a rater. An attention check says what to answer, by question."""

    token: str
    system: str
    clip: str
    check: dict[str, int] | None = None


@dataclass(frozen=True)
class Study:
    """The systems' folders by name, the clips that all of them have, and a secret from which tokens are made."""

    folder: Path
    systems: dict[str, Path]
    clips: tuple[str, ...]
    secret: str

    @classmethod
    def open(cls, folder: Path, systems: Sequence[Path] = ()) -> "Study":
        """The study in a folder, begun with the systems given if there is none.

        Raises InputError if there is neither, if the systems have no clip in common, or are not those of the study.
        """
        path = folder / "study.json"
        if path.exists():
            told = json.loads(path.read_text())
            study = cls(folder, {k: Path(v) for k, v in told["systems"].items()}, tuple(told["clips"]), told["secret"])
            if systems and [each.resolve() for each in systems] != list(study.systems.values()):
                raise InputError(f"{folder} holds a study of other systems: {', '.join(study.systems)}.")
            return study
        if len(systems) < 2:
            raise InputError(f"{folder} holds no study; give the folders of two systems or more to begin one.")
        names = _names(systems)
        clips = sorted(set.intersection(*({path.stem for path in each.glob("*.mp4")} for each in systems)))
        if not clips:
            raise InputError(f"{', '.join(map(str, systems))} have no clip (*.mp4) in common.")
        study = cls(
            folder, dict(zip(names, (s.resolve() for s in systems), strict=True)), tuple(clips), secrets.token_hex(16)
        )
        folder.mkdir(parents=True, exist_ok=True)
        told = {"systems": {name: str(each) for name, each in study.systems.items()}, "clips": clips}
        with writing(path), replacing(path) as partial:
            partial.write_text(json.dumps(told | {"secret": study.secret}, indent=1) + "\n")
        return study

    def _token(self, *of: str) -> str:
        return hashlib.sha256("/".join((self.secret, *of)).encode()).hexdigest()[:20]

    @cached_property
    def videos(self) -> dict[str, tuple[str, str]]:
        """Token → system and clip."""
        return {self._token(system, clip): (system, clip) for system in self.systems for clip in self.clips}

    def video(self, token: str) -> Path | None:
        """The file behind a token, if there is one."""
        token = token.removeprefix("check-")
        if token not in self.videos:
            return None
        system, clip = self.videos[token]
        return self.systems[system] / f"{clip}.mp4"

    def items(self, rater: str) -> list[Item]:
        """All videos in this rater's own random order, the same whenever they come back, with attention checks."""
        rng = np.random.default_rng(int(self._token("order", rater), 16))
        tokens = sorted(self.videos)
        order = [tokens[index] for index in rng.permutation(len(tokens))]
        items = []
        for number, token in enumerate(order):
            items.append(Item(token, *self.videos[token]))
            if number % CHECK_EVERY == CHECK_EVERY // 2:
                answers = {question: int(rng.choice(list(SCALE))) for question in QUESTIONS}
                items.append(Item(f"check-{token}", *self.videos[token], answers))
        return items

    @property
    def answers_path(self) -> Path:
        return self.folder / "answers.jsonl"

    def answers(self) -> list[dict[str, Any]]:
        """Every answer, the first of a rater to a page; a line cut off by a crash does not count."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        if self.answers_path.exists():
            for line in self.answers_path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                found.setdefault((row["rater"], row["token"]), row)
        return list(found.values())

    def next_item(self, rater: str) -> tuple[Item | None, int, int]:
        """The first page that the rater has not answered (None: all are), and how many of how many are."""
        done = {row["token"] for row in self.answers() if row["rater"] == rater}
        items = self.items(rater)
        return next((item for item in items if item.token not in done), None), len(done), len(items)

    def answer(self, rater: str, token: str, scores: dict[str, int]) -> None:
        """Append an answer. Raises ValueError for a page that the rater does not have, or a score off the scale."""
        if token not in {item.token for item in self.items(rater)}:
            raise ValueError("there is no such video")
        if scores.keys() != QUESTIONS.keys() or not set(scores.values()) <= SCALE.keys():
            raise ValueError("both questions need an answer from 0 to 2")
        row = {"rater": rater, "token": token, **scores, "time": round(time.time(), 1)}
        # One write of one line: answers of several raters at once do not mix.
        file = os.open(self.answers_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, ("\n" * self._cut_off() + json.dumps(row) + "\n").encode())
            os.fsync(file)
        finally:
            os.close(file)

    def _cut_off(self) -> bool:
        """Whether a crash left the last line without its end."""
        text = self.answers_path.read_bytes()[-1:] if self.answers_path.exists() else b""
        return text not in (b"", b"\n")


def _names(systems: Sequence[Path]) -> list[str]:
    """Folder names, longer where two are the same."""
    for depth in range(1, 6):
        names = ["/".join(each.resolve().parts[-depth:]) for each in systems]
        if len(set(names)) == len(names):
            return names
    raise InputError("two of the systems are one folder.")


@dataclass(frozen=True)
class Tally:
    """What a study found.

    Attributes:
        scores: system → question → mean from 0 to 2 with its interval over raters.
        wins: (system, other) → question → share of pairs of answers, of one rater to one clip, in which the first was
            better, ties half, with its interval over raters.
        agreement: question → Krippendorff's alpha, interval scale.
        raters, excluded: how many count, and who failed the attention checks.
    """

    scores: dict[str, dict[str, Estimate]]
    wins: dict[tuple[str, str], dict[str, Estimate]]
    agreement: dict[str, float]
    raters: int
    excluded: list[str]

    def markdown(self) -> str:
        head = ["system", *QUESTIONS]
        lines = [head, ["---"] * len(head)]
        lines += [[system, *(scores[q].text() for q in QUESTIONS)] for system, scores in self.scores.items()]
        lines += [[f"{a} against {b}", *(wins[q].text() for q in QUESTIONS)] for (a, b), wins in self.wins.items()]
        lines.append(["agreement (Krippendorff's α)", *(f"{self.agreement[q]:.2f}" for q in QUESTIONS)])
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        excluded = f"; left out for their attention checks: {', '.join(self.excluded)}" if self.excluded else ""
        return (
            f"{table}\n\n{self.raters} raters, means of 0 to 2 with 95 % bootstrap intervals over raters{excluded}.\n"
        )


def tally(study: Study, seed: int = 0) -> Tally:
    """Count a study's answers. Raises InputError without an answer that counts."""
    answers = study.answers()
    excluded = inattentive(study, answers)
    table: dict[str, dict[str, dict[str, dict[str, int]]]] = defaultdict(lambda: defaultdict(dict))
    for row in answers:
        if row["rater"] not in excluded and row["token"] in study.videos:
            system, clip = study.videos[row["token"]]
            table[row["rater"]][clip][system] = {question: row[question] for question in QUESTIONS}
    if not table:
        raise InputError(f"{study.folder} has no answers that count yet.")
    raters = sorted(table)
    scores = {
        system: {q: _over_raters([_scores(table[r], system, q) for r in raters], seed) for q in QUESTIONS}
        for system in study.systems
    }
    wins = {
        (a, b): {q: _over_raters([_wins(table[r], a, b, q) for r in raters], seed) for q in QUESTIONS}
        for a, b in combinations(study.systems, 2)
    }
    agreement = {}
    for question in QUESTIONS:
        matrix = np.full((len(raters), len(study.videos)), np.nan)
        for row, rater in enumerate(raters):
            for column, (system, clip) in enumerate(study.videos.values()):
                if system in table[rater].get(clip, {}):
                    matrix[row, column] = table[rater][clip][system][question]
        agreement[question] = krippendorff_alpha(matrix)
    return Tally(scores, wins, agreement, len(raters), sorted(excluded))


def inattentive(study: Study, answers: Sequence[dict[str, Any]]) -> set[str]:
    """Raters who failed more than ``MOST_FAILED`` of the attention checks that they answered."""
    checks = {}
    for rater in {row["rater"] for row in answers}:
        checks[rater] = {item.token: item.check for item in study.items(rater) if item.check is not None}
    failed = defaultdict(list)
    for row in answers:
        if (wanted := checks[row["rater"]].get(row["token"])) is not None:
            failed[row["rater"]].append(any(row[question] != wanted[question] for question in QUESTIONS))
    return {rater for rater, each in failed.items() if np.mean(each) > MOST_FAILED}


def _scores(clips: dict[str, dict[str, dict[str, int]]], system: str, question: str) -> list[float]:
    return [float(seen[system][question]) for seen in clips.values() if system in seen]


def _wins(clips: dict[str, dict[str, dict[str, int]]], a: str, b: str, question: str) -> list[float]:
    pairs = [(seen[a][question], seen[b][question]) for seen in clips.values() if a in seen and b in seen]
    return [0.5 + 0.5 * float(np.sign(own - other)) for own, other in pairs]


def _over_raters(values: Sequence[Sequence[float]], seed: int) -> Estimate:
    """Mean of all values, with the bootstrap interval of drawing raters: answers of one rater hang together."""
    sums, counts = np.array([sum(each) for each in values], float), np.array([len(each) for each in values])
    if not counts.sum():
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    with np.errstate(invalid="ignore"):
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.nanquantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum()))
