"""A benchmark suite: portraits × voices × prompts as one manifest, made on the spot by free generators.

What the paper's §3.2 describes (portraits of many styles, speech, singing and rap in many languages, prompts of
emotion, gesture and surroundings), built anew from things that may be shared. Nothing is downloaded: portraits come
from the package's own renderer and from paintings in the public domain (``assets/art``), voices from espeak-ng, Flite,
Hibari and Kokoro.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from skyreels_audio import faces, media
from skyreels_audio.evaluation.cases import Case, write_cases
from skyreels_audio.evaluation.prepare import write_sound
from skyreels_audio.media.files import replacing, writing

if TYPE_CHECKING:
    from skyreels_audio.synthetic.appearance import Appearance
    from skyreels_audio.synthetic.speech import Utterance

Style = Literal[
    "realistic", "cartoon", "anime", "poster", "painting", "pencil drawing", "sepia photograph",
    "black-and-white photograph", "marble", "bronze",
]  # fmt: skip
STONE = {"marble": (0.62, 0.60, 0.56), "bronze": (0.24, 0.13, 0.055)}  # linear albedo
ANIME_HAIR = ((0.08, 0.16, 0.55), (0.65, 0.12, 0.30), (0.10, 0.42, 0.25), (0.40, 0.10, 0.55), (0.75, 0.45, 0.05))
MELODY = (0, 0, 7, 7, 9, 9, 7, 5, 5, 4, 4, 2, 2, 0)  # semitones
FIRST_PERSON = 5000  # of the drawn people of the test split
Progress = Callable[[str, int, int], None]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Portrait(_Strict):
    """Either ``person``, whom the renderer draws, or a ``picture``: a file of ``assets/art``."""

    name: str
    style: Style
    person: int | None = None
    picture: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "Portrait":
        if (self.person is None) == (self.picture is None):
            raise ValueError(f"{self.name} needs either a person or a picture")
        return self


class Voice(_Strict):
    """``voice`` is the engine's: a variant of espeak-ng, a speaker of Flite, Hibari or Kokoro."""

    name: str
    kind: Literal["speech", "singing", "rap"]
    language: str
    engine: Literal["espeak", "flite", "hibari", "kokoro"]
    voice: str
    text: str


class Prompt(_Strict):
    name: str
    kind: Literal["emotion", "gesture", "surroundings"]
    text: str


class Suite(_Strict):
    name: str
    version: str
    licences: dict[str, str]
    portraits: tuple[Portrait, ...]
    voices: tuple[Voice, ...]
    prompts: tuple[Prompt, ...]

    @cached_property
    def cases(self) -> list[tuple[str, Portrait, Voice, Prompt]]:
        """All combinations, in an order of which any beginning is balanced: each portrait once, then each again."""
        count = len(self.portraits) * len(self.voices) * len(self.prompts)
        found = []
        for number in range(count):
            turn, portrait = divmod(number, len(self.portraits))
            voice, prompt = (11 * portrait + turn) % len(self.voices), (7 * portrait + turn // len(self.voices)) % 20
            chosen = self.portraits[portrait], self.voices[voice], self.prompts[prompt % len(self.prompts)]
            found.append((f"{number:05d}-{'-'.join(each.name for each in chosen)}", *chosen))
        return found


def load_suite(name: str) -> Suite:
    """A suite of the package by its name, or a YAML file. Raises InputError, which says what is wrong with it."""
    path: Any = files("skyreels_audio.evaluation") / "assets" / "suites" / f"{name}.yaml"
    path = path if path.is_file() else Path(name)
    if not path.is_file():
        raise media.InputError(f"There is no suite {name}: give a YAML file, or talking-50x30x20.")
    try:
        return Suite.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("",), "msg": str(error)}
        raise media.InputError(f"{name} is not a suite ({'.'.join(map(str, first['loc']))}: {first['msg']}).") from None


def make_inputs(suite: Suite, out: Path, subset: int, size: tuple[int, int], progress: Progress) -> list[Case]:
    """The first ``subset`` cases' portraits (of ``size``: height, width) and voices, in ``out``, where not yet there.

    Also writes ``cases.json``, so that ``out`` is a reference folder for any system's videos. Raises ValueError where a
    synthesizer that the suite needs is not installed.
    """
    from skyreels_audio.synthetic.render import Renderer

    chosen = suite.cases[:subset]
    for folder in ("portraits", "voices", "videos"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    renderer, cases = None, []
    for number, (name, portrait, voice, prompt) in enumerate(chosen):
        picture, sound = out / "portraits" / f"{portrait.name}.png", out / "voices" / f"{voice.name}.wav"
        phonemes = sound.with_suffix(".phonemes.json")
        if not picture.exists():
            if portrait.picture is None:
                renderer = renderer or Renderer(size)
                media.write_image(picture, draw(renderer, portrait))
            else:
                media.write_image(picture, framed(read_art(portrait.picture), size))
        if not phonemes.exists():
            utterance = speak(voice)
            write_sound(sound, utterance.waveform)
            with writing(phonemes), replacing(phonemes) as partial:
                partial.write_text(json.dumps(utterance.phonemes, ensure_ascii=False) + "\n")
        cases.append(Case(name, None, sound, picture, phonemes, prompt.text))
        progress("inputs", number + 1, len(chosen))
    write_cases(out, cases, suite=suite.name, version=suite.version, licences=suite.licences)
    return cases


def make_videos(
    cases: list[Case], pipe: Any, out: Path, shard: tuple[int, int] = (0, 1), progress: Progress = lambda *_: None
) -> dict[str, str]:
    """A pipeline's video of every ``shard[1]``-th case from ``shard[0]`` on, in ``out/videos``; those there are kept.

    A case that fails does not end the run; returns why, by its name.
    """
    import torch

    mine = cases[shard[0] :: shard[1]]
    failed = {}
    for done, case in enumerate(mine, 1):
        path = out / "videos" / f"{case.name}.mp4"
        assert case.portrait is not None and case.voice is not None
        try:
            if not path.exists():
                seed = int(hashlib.sha256(case.name.encode()).hexdigest()[:8], 16)
                picture, voice_n = media.read_image(case.portrait), media.read_audio(case.voice)
                video = pipe(picture, voice_n, case.prompt, generator=torch.Generator("cpu").manual_seed(seed))
                height, width = picture.shape[:2]
                with media.VideoWriter(path, width, height, video.fps, audio=case.voice) as writer:
                    for frame in video.frames:
                        writer.write(frame)
        except Exception as error:  # hours of other cases follow
            failed[case.name] = f"{type(error).__name__}: {error}"
        progress("videos", done, len(mine))
    return failed


def read_art(name: str) -> np.ndarray:
    """A picture of ``assets/art``: uint8 [H, W, 3]. Raises InputError if there is none of that name."""
    with as_file(files("skyreels_audio.evaluation") / "assets" / "art" / name) as path:
        return media.read_image(path)


def framed(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture cut around its face as `generate` does it: uint8 of ``size`` (height, width)."""
    found = faces.detect_faces(picture)
    box = faces.portrait_crop(picture, found[0] if found else None, size)
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box))


def draw(renderer: Any, portrait: Portrait) -> np.ndarray:
    """A drawn person of the suite at rest: uint8 [H, W, 3]."""
    from skyreels_audio.evaluation.held_out import portrait as at_rest
    from skyreels_audio.evaluation.subjects import drawn

    assert portrait.person is not None
    look = {"anime": "cartoon", "marble": "realistic", "bronze": "realistic"}.get(portrait.style, portrait.style)
    subject, _ = drawn("test", FIRST_PERSON + portrait.person, look, lambda appearance: _restyled(appearance, portrait))
    return at_rest(renderer, subject)[0]


def _restyled(appearance: "Appearance", portrait: Portrait) -> "Appearance":
    if portrait.style in STONE:
        stone = STONE[portrait.style]
        parts = dict.fromkeys(("skin", "lips", "hair", "brow", "iris", "teeth", "cloth", "cloth_second"), stone)
        plain = dict(blush=0.0, freckles=0.0, shadow_under_eyes=0.0, stubble=0.0, lower_lashes=0.0, cloth_pattern=0)
        return replace(appearance, **parts, **plain, hair_style="cropped", beard="none", gloss=0.35, lip_gloss=0.3)
    if portrait.style == "anime":
        assert portrait.person is not None
        hair = ANIME_HAIR[portrait.person % len(ANIME_HAIR)]
        return replace(appearance, hair=hair, brow=hair, iris_size=0.56, beard="none", stubble=0.0, freckles=0.0)
    return appearance


def speak(voice: Voice) -> "Utterance":
    """The voice's text, spoken, sung or rapped, always the same. Raises ValueError if its engine is not installed."""
    from skyreels_audio.synthetic import voices

    engine = {"flite": voices.say_flite, "hibari": voices.say_hibari, "kokoro": voices.say_kokoro}

    def say(text: str) -> "Utterance":
        rng = np.random.default_rng(int(hashlib.sha256(voice.name.encode()).hexdigest()[:8], 16))
        if voice.engine == "espeak":
            return voices.say_espeak(text, voice.language, voice.voice, rng)
        return engine[voice.engine](text, voice.voice, rng)

    if voice.engine != "espeak" and not voices.installed()[voice.engine]:
        raise ValueError(f"voice {voice.name} of the suite needs {voice.engine}, which is not installed")
    if voice.kind == "speech":
        return say(voice.text)
    return _on_beats([say(word) for word in voice.text.split()], singing=voice.kind == "singing")


def _on_beats(words: "list[Utterance]", singing: bool) -> "Utterance":
    """Each word on a beat: sung on the notes of a melody, half a second each; rapped fast and level over a drum."""
    from skyreels_audio.synthetic.speech import RATE, Utterance, replay

    beat = 0.5 if singing else 0.3
    time, placed = 0.0, []
    for number, word in enumerate(words):
        spoken = replay(word, 2 ** (MELODY[number % len(MELODY)] / 12) if singing else 1.3)
        spoken = _trimmed(spoken)
        placed.append((time, spoken))
        time = beat * max(np.ceil((time + spoken.duration) / beat - 0.2), np.floor(time / beat) + 1)
    waveform = np.zeros(round((time + 0.4) * RATE), np.float32)
    phonemes = []
    for start, spoken in placed:
        first = round(start * RATE)
        part = waveform[first : first + len(spoken.waveform)]
        part += spoken.waveform[: len(part)]
        phonemes += [(start + a, start + b, ipa) for a, b, ipa in spoken.phonemes]
    if not singing:
        ticks = np.arange(round(0.12 * RATE)) / RATE
        drum = (0.25 * np.sin(2 * np.pi * 65 * ticks) * np.exp(-30 * ticks)).astype(np.float32)
        for first in range(0, len(waveform) - len(drum), round(2 * beat * RATE)):
            waveform[first : first + len(drum)] += drum
    text = " ".join(word.text for word in words)
    return Utterance(waveform.clip(-1, 1), tuple(phonemes), text, words[0].language, words[0].voice)


def _trimmed(spoken: "Utterance") -> "Utterance":
    """Without the silence around a single word."""
    from skyreels_audio.synthetic.speech import RATE, cut

    loud = np.flatnonzero(np.abs(spoken.waveform) > 0.01)
    if not len(loud):
        return spoken
    start = max(loud[0] / RATE - 0.02, 0.0)
    return cut(spoken, start, loud[-1] / RATE + 0.03 - start)
