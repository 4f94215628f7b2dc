"""Precomputed clips: latents, audio features and labels in self-contained shards (safetensors)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

AUDIO_MARGIN = 16  # audio tokens kept before and after a clip


@dataclass(frozen=True)
class Clips:
    """Clips of one length: T latent frames, F = 4(T-1)+1 pixel frames, A = 2F + 2·AUDIO_MARGIN audio tokens at 25 fps.

    Token ``j`` lies at clock position ``j + 0.5 - AUDIO_MARGIN`` (rope.py), 0 being the clip's first frame.
    """

    latents_NCTHW: Tensor
    """float16, divided by the autoencoder's per-channel scale."""
    stills_NRCHW: Tensor
    """float16: R still frames of the same scene, each encoded alone, to draw references from; the first is at rest."""
    lips_NTHW: Tensor
    """uint8, 255 where a latent cell is all lips."""
    audio_NAD: Tensor
    """float16 audio features."""
    visemes_NAV: Tensor
    """float16 viseme curves at the audio tokens' times."""
    captions: tuple[str, ...]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.latents_NCTHW)

    def save(self, path: Path) -> None:
        tensors = {
            f.name: getattr(self, f.name).contiguous() for f in fields(self) if f.name not in {"captions", "kinds"}
        }
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, {"captions": json.dumps(self.captions), "kinds": json.dumps(self.kinds)})
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Clips":
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return cls(
            **tensors, captions=tuple(json.loads(metadata["captions"])), kinds=tuple(json.loads(metadata["kinds"]))
        )

    def select(self, rows: Sequence[int]) -> "Clips":
        chosen = list(rows)
        picked = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name not in {"captions", "kinds"}}
        return replace(
            self, **picked, captions=tuple(self.captions[i] for i in chosen), kinds=tuple(self.kinds[i] for i in chosen)
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Clips"]) -> "Clips":
        names = [f.name for f in fields(cls) if f.name not in {"captions", "kinds"}]
        with torch.autocast("cpu", enabled=False):  # which knows no float16
            tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return cls(
            **tensors,
            captions=tuple(c for part in parts for c in part.captions),
            kinds=tuple(k for part in parts for k in part.kinds),
        )


class ShardFolder:
    """The clips of a folder of shards, which may still be growing while a training reads it.

    ``kinds``: which of the clips to take; the others in a shard are left unread.
    """

    def __init__(self, folder: Path, kinds: Sequence[str]) -> None:
        self.folder, self.kinds = folder, frozenset(kinds)
        self.shards: dict[str, Clips] = {}

    def refresh(self) -> None:
        """Read the shards that have appeared since the last call."""
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            if path.name not in self.shards:
                clips = Clips.load(path)
                self.shards[path.name] = clips.select([i for i, kind in enumerate(clips.kinds) if kind in self.kinds])

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards.values())

    def draw(self, count: int, generator: torch.Generator) -> Clips:
        """``count`` random clips, with replacement."""
        shards = list(self.shards.values())
        sizes = torch.tensor([len(s) for s in shards], dtype=torch.float)
        owners = torch.multinomial(sizes, count, replacement=True, generator=generator).tolist()
        parts = []
        for owner in sorted(set(owners)):
            rows = torch.randint(len(shards[owner]), (owners.count(owner),), generator=generator).tolist()
            parts.append(shards[owner].select(rows))
        return Clips.concatenate(parts)
