"""Clips that no training has seen, with everything known about them: who, in which picture, says what, with which lips.

Needs espeak-ng; each clip depends on its number alone (and on the sentences that the system's catalogues hold).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from skyreels_audio.evaluation.lips import true_curves
from skyreels_audio.synthetic.motion import FPS, Manner, Motion, animate
from skyreels_audio.synthetic.render import Rendered, Renderer
from skyreels_audio.synthetic.rig import ACTIONS
from skyreels_audio.synthetic.speech import RATE, Phoneme, Utterance, concatenate, cut
from skyreels_audio.synthetic.subject import Subject
from skyreels_audio.synthetic.teeth import gap_of, lay_inside, place_teeth, usual_teeth
from skyreels_audio.synthetic.visemes import CURVE_RATE, curves, loudness

SILENCE = 2.0  # seconds in the middle of a broken voice
CALM = Manner(blinks=True)  # what a video of a still head shows: the mouth and the eyelids move


@dataclass(frozen=True, eq=False)
class Voice:
    """Speech of a held-out voice and sentence, and what a mouth does with it."""

    waveform: np.ndarray  # float32 [n] at 16 kHz
    visemes: np.ndarray  # float32 [m, 9] at 100 Hz
    phonemes: tuple[Phoneme, ...]

    @property
    def frames(self) -> int:
        return int(np.ceil(len(self.waveform) * FPS / RATE - 1e-6))

    @cached_property
    def silent_F(self) -> np.ndarray:
        """Which frames fall into ``SILENCE``: the longest stretch of zeros in the waveform."""
        loud = np.flatnonzero(np.pad(np.abs(self.waveform) > 1e-4, 1, constant_values=True))
        gap = int(np.diff(loud).argmax())
        times = np.arange(self.frames) / FPS
        return (times >= loud[gap] / RATE) & (times < (loud[gap + 1] - 1) / RATE)


def voice(number: int, seconds: float) -> Voice:
    """A stretch of speech by one of the held-out voices, in any language, from the onset of a phoneme on."""
    from skyreels_audio.synthetic.bank import compose

    rng = np.random.default_rng([number, 11])
    utterance = compose("test", rng, ["espeak"])
    starts = [start for start, _, _ in utterance.phonemes if start + seconds < utterance.duration]
    start = round(float(rng.choice(starts or [0.0])) * CURVE_RATE) / CURVE_RATE
    return _voice(utterance, start, seconds)


def broken_voice(number: int) -> Voice:
    """Two sentences with ``SILENCE`` between them."""
    from skyreels_audio.synthetic.bank import TEST_VOICES
    from skyreels_audio.synthetic.sentences import ENGLISH, sentence
    from skyreels_audio.synthetic.voices import say_espeak

    rng = np.random.default_rng([number, 12])
    speakers = sorted(name.split(":")[1] for name in TEST_VOICES if name.startswith("espeak:"))
    speaker = speakers[number % len(speakers)]
    said = [say_espeak(sentence(ENGLISH[0], rng, test=True), ENGLISH[0], speaker, rng) for _ in range(2)]
    said = [cut(u, 0, min(u.duration, 2.4)) for u in said]
    return _voice(concatenate(said, [0.1, SILENCE, 0.1]), 0.0, None)


def _voice(utterance: Utterance, start: float, seconds: float | None) -> Voice:
    visemes, seconds = curves(utterance), utterance.duration - start if seconds is None else seconds
    first, count = round(start * CURVE_RATE), int(np.ceil(seconds * CURVE_RATE))
    said = cut(utterance, start, seconds)
    return Voice(said.waveform, visemes[first : first + count], said.phonemes)


def speaking_motion(said: Voice, number: int, manner: Manner = CALM) -> Motion:
    """How the person of a clip moves when saying it."""
    return animate(said.visemes, loudness(said.waveform), np.random.default_rng([number, 13]), manner, said.frames)


def portrait(renderer: Renderer, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """The subject at rest: a picture uint8 [H, W, 3] and its 68 landmarks, pixels."""
    weights, place, gaze = (np.zeros((1, width), np.float32) for width in (len(ACTIONS), 3, 2))
    still = Motion(weights, place, place, gaze)
    shown = renderer.render(subject, still)
    return shown.frames[0], shown.landmarks_T682[0]


def true_video(renderer: Renderer, subject: Subject, motion: Motion) -> tuple[Rendered, np.ndarray]:
    """What a perfect model would make, and its lip curves [F, C]. Real people show the teeth that are usual."""
    shown, curves = renderer.render(subject, motion), true_curves(motion.weights_TK)
    corners = shown.mesh_TL2[0].min(0), shown.mesh_TL2[0].max(0)
    frames = []
    for t, (frame, inside) in enumerate(zip(shown.frames, renderer.insides(subject, motion), strict=True)):
        seen = renderer.seen(subject, motion, t)
        place_32 = place_teeth(seen)
        gap = np.array([gap_of(seen, place_32)])
        frames.append(lay_inside(frame[None], inside[None], place_32, gap, np.concatenate(corners), usual_teeth()))
    return replace(shown, frames=np.concatenate(frames)), curves
