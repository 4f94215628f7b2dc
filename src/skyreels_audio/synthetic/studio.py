"""Clips of talking heads with exact labels, one at a time in memory.

Clip n of a seed is always the same clip. Every eighth one is of the test split, which shares no identity, photograph,
voice or sentence with the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from skyreels_audio.faces import Face, detect_faces
from skyreels_audio.media import read_image
from skyreels_audio.synthetic.appearance import sample_appearance
from skyreels_audio.synthetic.background import sample_background
from skyreels_audio.synthetic.bank import SpeechBank
from skyreels_audio.synthetic.captions import (
    Attributes,
    background_attributes,
    caption,
    manner_attributes,
    person_attributes,
)
from skyreels_audio.synthetic.motion import FPS, MOUTH_ONLY, Manner, Motion, animate, sample_manner
from skyreels_audio.synthetic.person import dress
from skyreels_audio.synthetic.photograph import animate_photograph, suitable
from skyreels_audio.synthetic.photograph import split as photograph_split
from skyreels_audio.synthetic.render import Rendered, Renderer
from skyreels_audio.synthetic.speech import Utterance, augment, cut
from skyreels_audio.synthetic.subject import Subject
from skyreels_audio.synthetic.visemes import CURVE_RATE, loudness

TEST_SHARE = 8  # one clip in eight
PHOTOGRAPH_SHARE = 0.4  # of the clips, where there are photographs


def _mouth(rng: np.random.Generator) -> Manner:
    return MOUTH_ONLY


def _slight(rng: np.random.Generator) -> Manner:
    return Manner(head=("still", "slight")[rng.integers(2)], blinks=True, upper_face=bool(rng.integers(2)))


# How much moves, as training proceeds: only the mouth; blinks and slight motion; everything.
STAGES: dict[str, Callable[[np.random.Generator], Manner]] = {"mouth": _mouth, "slight": _slight, "full": sample_manner}


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip: T frames at 25 per second, what is heard in them, and what is known about them."""

    rendered: Rendered
    motion: Motion
    speech: Utterance  # T / 25 s, in a random room; its phonemes count from the first frame
    visemes: np.ndarray  # float32 [n, 9] at 100 Hz
    attributes: Attributes
    caption: str
    split: str  # "train" or "test"
    identity: str  # "drawn:<seed>" or "photograph:<file name>"


class Studio:
    """Makes clips of `frames` frames from a speech bank.

    `size` is the side of the frames or (height, width); `stage` is a key of `STAGES`; `photographs` is a folder of
    portraits, of which those with closed lips and a face towards the camera are animated. Raises ValueError for an
    unknown stage, an empty bank, or a folder without such portraits.
    """

    def __init__(
        self,
        speech: Path,
        frames: int,
        size: int | tuple[int, int] = 256,
        seed: int = 0,
        stage: str = "full",
        photographs: Path | None = None,
    ) -> None:
        if stage not in STAGES:
            raise ValueError(f"no stage {stage!r}; there are {', '.join(STAGES)}")
        self.frames, self.seed, self.stage = frames, seed, stage
        self._speech = {split: SpeechBank(speech, split) for split in ("train", "test")}
        self._renderer = Renderer(size)
        self._photographs: dict[str, list[Path]] = {"train": [], "test": []}
        if photographs is not None:
            for path in sorted(photographs.iterdir()):
                if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
                    self._photographs[photograph_split(path.name)].append(path)
            if not all(self._photographs.values()):
                raise ValueError(f"{photographs}: too few photographs to train and test with")

    def clip(self, index: int) -> Clip:
        """Clip `index`, the same whenever and wherever it is made."""
        rng = np.random.default_rng([self.seed, index])
        split = "test" if index % TEST_SHARE == TEST_SHARE - 1 else "train"
        speech, visemes = self._say(split, rng)
        manner = STAGES[self.stage](rng)
        motion = animate(visemes, loudness(speech.waveform), rng, manner, self.frames)
        photographed = bool(self._photographs[split]) and rng.random() < PHOTOGRAPH_SHARE
        subject, identity, attributes = (self._photograph if photographed else self._draw)(split, rng)
        attributes |= manner_attributes(manner)
        return Clip(
            rendered=self._renderer.render(subject, motion),
            motion=motion,
            speech=replace(speech, waveform=augment(speech.waveform, rng)),
            visemes=visemes,
            attributes=attributes,
            caption=caption(attributes, rng),
            split=split,
            identity=identity,
        )

    def _say(self, split: str, rng: np.random.Generator) -> tuple[Utterance, np.ndarray]:
        """A random stretch of a random utterance, on the grid of the curves."""
        bank, seconds = self._speech[split], self.frames / FPS
        utterance, visemes = bank[int(rng.integers(len(bank)))]
        first = int(rng.integers(max(1, len(visemes) - round(seconds * CURVE_RATE))))
        count = int(np.ceil(seconds * CURVE_RATE))
        visemes = visemes[first : first + count]
        visemes = np.pad(visemes, ((0, count - len(visemes)), (0, 0)))
        return cut(utterance, first / CURVE_RATE, seconds), visemes

    def _photograph(self, split: str, rng: np.random.Generator) -> tuple[Subject, str, Attributes]:
        """The first animatable portrait from a random place in the folder on."""
        paths, first = self._photographs[split], int(rng.integers(len(self._photographs[split])))
        for path in paths[first:] + paths[:first]:
            picture, face = _portrait(path)
            if face is not None and suitable(face):
                size = self._renderer.height, self._renderer.width
                subject = animate_photograph(picture, face, size)
                known: Attributes = {"look": "realistic", **background_attributes(subject.background)}
                return subject, f"photograph:{path.name}", known
        raise ValueError(f"{paths[0].parent}: no photograph with closed lips and a face towards the camera")

    def _draw(self, split: str, rng: np.random.Generator) -> tuple[Subject, str, Attributes]:
        """A drawn person. Their seeds are odd in training and even in the test split."""
        person = 2 * int(rng.integers(1 << 30)) + (split == "train")
        rig = self._renderer.rig
        identity = rig.identity(person)
        appearance, background = sample_appearance(person, identity), sample_background(rng)
        if self.stage == "mouth":
            background = replace(background, drift=(0.0, 0.0))
        attributes = person_attributes(identity, appearance) | background_attributes(background)
        return dress(rig, identity, appearance, background), f"drawn:{person}", attributes


@lru_cache(maxsize=256)
def _portrait(path: Path) -> tuple[np.ndarray, Face | None]:
    """A picture and its largest face."""
    picture = read_image(path)
    return picture, next(iter(detect_faces(picture)), None)
