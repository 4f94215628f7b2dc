"""Batches out of the shards that `precompute` wrote: which samples a step sees follows from the step alone.

Nothing of a sampler needs to be saved: the order of an epoch is a permutation that follows from the seed, the epoch and
the set of samples, and the set's fingerprint is part of the state of a run.
"""

import hashlib
import json
import logging
import math
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.media import InputError
from skyreels_audio.training.batch import Batch, generator_of
from skyreels_audio.training.precompute import Tensors, null_text
from skyreels_audio.training.recipe import Quality

log = logging.getLogger(__name__)
ENOUGH = 0.5
"""Share of a set's samples that must be there to train on it."""


@dataclass(frozen=True)
class Place:
    """Where a sample's tensors lie, and which batches it can be in."""

    key: str
    path: Path
    start: int
    size: int
    sha256: str
    bucket: tuple[int, int, int]
    """T, H, W: samples of a batch share it."""
    confidence: float | None

    def read(self) -> Tensors:
        """Raises ValueError if the bytes have changed."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            blob = file.read(self.size)
        if hashlib.sha256(blob).hexdigest() != self.sha256:
            raise ValueError("its bytes have changed")
        return load(blob)


class Shards:
    """The `Source` of precomputed clips.

    Args:
        folders: of `precompute`, all with the same encoders.
        batch: samples of a step, over all processes.
        seed: of the order.
        quality: which samples may be seen from which step on.
        text_tokens: length S of the encoded prompt.
        device: where batches are put.

    Raises:
        InputError: a folder is none of `precompute`, half of its samples are missing, or none is good enough.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        batch: int,
        seed: int,
        quality: Sequence[Quality],
        text_tokens: int,
        device: torch.device,
    ) -> None:
        self.size, self.seed, self.quality = batch, seed, quality
        self.text_tokens, self.device = text_tokens, device
        self.trouble: dict[str, str] = {}
        """What cannot be read, and why, by shard or sample."""
        training: list[Place] = []
        self.kept: list[Place] = []
        encoders = set()
        for folder in folders:
            told = _read_set(folder)
            encoders.add((told["encoders"], told["fps"]))
            places, wanted = scan(folder, self.trouble), told["samples"]
            there = [entry for entry in wanted if entry["key"] in places]
            if len(there) < ENOUGH * len(wanted):
                raise InputError(
                    f"{folder} has {len(there)} of {len(wanted)} samples; run `skyreels-audio precompute` to its end."
                )
            if len(there) < len(wanted):
                log.warning("%s lacks %d of %d samples.", folder, len(wanted) - len(there), len(wanted))
            for entry in there:
                (self.kept if entry["held_out"] else training).append(_place(folder, entry, places[entry["key"]]))
        if len(encoders) > 1:
            raise InputError("The folders of data were encoded by different models, or at different rates.")
        self.encoders = encoders.pop()[0]
        self.null_SD = null_text(folders[0])
        self.phases = [
            (phase.from_step, sorted((x for x in training if _good(x, phase)), key=lambda x: x.key))
            for phase in quality
        ]
        empty = [start for start, places in self.phases if not places]
        if empty:
            raise InputError(f"No sample is good enough from step {empty[0]} on; lower curriculum.quality.")
        keys = " ".join(place.key for _, places in self.phases for place in places)
        self.fingerprint = hashlib.sha256(keys.encode()).hexdigest()[:16]

    def order(self, step: int) -> tuple[Place, ...]:
        """The samples of a step's whole batch, all of one bucket."""
        start, phase = next((s, i) for i, (s, _) in reversed(list(enumerate(self.phases))) if s <= step)
        number, per_epoch = step - start, self.epoch(phase, 0)
        return self.epoch(phase, number // len(per_epoch))[number % len(per_epoch)]

    @lru_cache(maxsize=4)  # noqa: B019 (as many sources as trainings: one)
    def epoch(self, phase: int, number: int) -> tuple[tuple[Place, ...], ...]:
        """The batches of an epoch. Every sample is in it; what does not fill a batch is filled up from its bucket."""
        generator = generator_of(self.seed, phase, number)
        buckets: dict[tuple[int, int, int], list[Place]] = defaultdict(list)
        for place in self.phases[phase][1]:
            buckets[place.bucket].append(place)
        batches = []
        for _, places in sorted(buckets.items()):
            order = torch.randperm(len(places), generator=generator).tolist()
            count = math.ceil(len(order) / self.size)
            filled = [places[order[i % len(order)]] for i in range(count * self.size)]
            batches += [tuple(filled[i : i + self.size]) for i in range(0, len(filled), self.size)]
        return tuple(batches[i] for i in torch.randperm(len(batches), generator=generator).tolist())

    def batch(self, step: int, samples: range) -> Batch:
        order = self.order(step)
        return self.stack([self.read(order[sample], step, sample) for sample in samples])

    def read(self, place: Place, step: int, sample: int) -> Tensors:
        """A sample's tensors; if they are damaged, those of another one of its bucket, told once and counted."""
        tensors = self.tensors(place)
        if tensors is not None:
            return tensors
        others = [x for _, places in self.phases for x in places if x.bucket == place.bucket]
        for other in torch.randperm(len(others), generator=generator_of(self.seed, step, sample, 1)).tolist():
            if (tensors := self.tensors(others[other])) is not None:
                return tensors
        raise InputError(f"No sample of {place.path.parent} can be read: {self.trouble[place.key]}.")

    def tensors(self, place: Place) -> Tensors | None:
        """What a sample holds; None, and told, if it cannot be read."""
        try:
            return place.read()
        except (OSError, ValueError, SafetensorError) as error:
            if place.key not in self.trouble:
                self.trouble[place.key] = f"{place.path.name}, sample {place.key}: {error}"
                log.warning("%s; another sample takes its place.", self.trouble[place.key])
            return None

    def held_out(self, number: int) -> Batch | None:
        buckets: dict[tuple[int, int, int], list[Place]] = defaultdict(list)
        for place in sorted(self.kept, key=lambda x: x.key):
            buckets[place.bucket].append(place)
        batches = [
            places[i : i + self.size] for _, places in sorted(buckets.items()) for i in range(0, len(places), self.size)
        ]
        there = [self.tensors(place) for place in batches[number]] if number < len(batches) else []
        return self.stack([each for each in there if each is not None]) if any(there) else None

    def stack(self, tensors: list[Tensors]) -> Batch:
        def together(name: str) -> Tensor:
            parts = [each[name] for each in tensors]
            if parts[0].dtype != torch.float64:  # positions on the clock stay exact
                parts = [part.float() for part in parts]  # first: bfloat16's autocast does not stack float16
            return torch.stack(parts).to(self.device)

        def padded(text_SD: Tensor) -> Tensor:
            return F.pad(text_SD.float(), (0, 0, 0, self.text_tokens - len(text_SD)))

        conditions = Conditions(
            text_BSD=torch.stack([padded(each["text_SD"]) for each in tensors]).to(self.device),
            null_text_BSD=padded(self.null_SD).expand(len(tensors), -1, -1).to(self.device),
            audio_BAD=together("audio_AD"),
            audio_positions_A=together("audio_positions_A"),
            reference_BCTHW=together("image_CTHW"),
            known_B4THW=together("image_known_4THW"),
            video_positions_T=together("video_positions_T"),
            image_BND=together("image_ND") if "image_ND" in tensors[0] else None,
        )
        return Batch(
            clean_BCTHW=together("clean_CTHW"),
            conditions=conditions,
            editing_BCTHW=together("editing_CTHW"),
            editing_known_B4THW=together("editing_known_4THW"),
            lips_BTHW=together("lips_THW"),
            squares_BF4=together("squares_F4") if all("squares_F4" in each for each in tensors) else None,
            mfcc_BCM=together("mfcc_CM") if all("mfcc_CM" in each for each in tensors) else None,
        )


def scan(folder: Path, trouble: dict[str, str]) -> dict[str, tuple[Path, int, int, str]]:
    """Where in a folder's shards a sample lies: path, offset, size, SHA-256. Damaged shards are told and left out."""
    found: dict[str, tuple[Path, int, int, str]] = {}
    for path in sorted(folder.glob("shard-*.tar")):
        try:
            with tarfile.open(path) as tar:
                members = {member.name: member for member in tar.getmembers()}
                for name, member in members.items():
                    key = name.removesuffix(".json")
                    data = members.get(f"{key}.safetensors")
                    file = tar.extractfile(member) if name != key and data is not None else None
                    if file is not None and data is not None:
                        found[key] = (path, data.offset_data, data.size, json.load(file)["sha256"])
        except (tarfile.TarError, OSError, ValueError, KeyError) as error:
            trouble[path.name] = f"{path}: {error}"
            log.warning("The shard %s cannot be read (%s) and is left out.", path, error)
    return found


def _read_set(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "set.json").read_text())
    except (OSError, ValueError):
        raise InputError(
            f"{folder} is no folder of precomputed clips; `skyreels-audio precompute` makes one."
        ) from None


def _place(folder: Path, entry: dict[str, Any], found: tuple[Path, int, int, str]) -> Place:
    bucket = (entry["latents"], *entry["size"])
    return Place(entry["key"], *found, bucket, entry["confidence"])


def _good(place: Place, phase: Quality) -> bool:
    """A sample that was never judged passes unless a confidence is asked for."""
    return phase.confidence is None or (place.confidence is not None and place.confidence >= phase.confidence)
