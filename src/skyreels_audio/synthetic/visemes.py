"""Mouth shapes of speech: phonemes with times and loudness → nine viseme curves → ARKit face actions.

Coarticulation is a dominance model (Cohen & Massaro, 1993): every phoneme has a target per channel and a dominance that
says how much it insists on it; the curve is the dominance-weighted mean of the targets in a Gaussian neighbourhood.
A /t/ hardly cares about rounding, so the /u/ after it is rounded in time; a /p/ insists on closed lips. How far lips
part is fitted to a speaker's.
"""

import re

import numpy as np

from skyreels_audio.synthetic.rig import ACTIONS
from skyreels_audio.synthetic.speech import RATE, Phoneme, Utterance

CURVE_RATE = 100  # curve values per second
VISEME_CHANNELS = ("part", "funnel", "pucker", "press", "wide", "upup", "lowdn", "roll", "tongue")
PAUSE = 0.25  # seconds; from here on a silence closes and stills the mouth
_SETTLE = 0.1  # seconds at both ends of a pause in which the mouth closes and opens
_LEAD = 0.02  # seconds by which the articulators are ahead of the sound

_FINE = 4  # internal steps per curve value
_SIGMA = 0.030  # seconds, of coarticulation
_WIDEST = 25  # curve values that a sound reaches
_JITTER = 0.03  # of lips that are closed, as landmarks see them
_CLOSURE_SIGMA = 0.014
_CLOSURE_LEAST = 0.07  # seconds for which lips stay together in a fast /b/

# class: (IPA letters, how lips part, targets, dominance). Lips part by a share of what a shout needs, with a dominance,
# and reach so many milliseconds before and after the sound: fitted to 430 sentences of a GRID speaker by gradient
# descent, all at once, and rounded. On 68 others the distance of his lips follows it with r = 0.81.
# Targets: funnel pucker press wide upup lowdn roll tongue. Dominance: of lip shape (funnel, pucker, wide), of lip
# height (upup, lowdn), of the tongue.
_Numbers = tuple[float, ...]
_CLASSES: dict[str, tuple[str, _Numbers, _Numbers, _Numbers]] = {
    "bilabial": ("pbmɓʙ", (0, 2.5, 35, 45), (0, 0, 0.7, 0, 0, 0, 0, 0), (0.2, 1.5, 0.2)),
    "labiodental": ("fvʋɱ", (0, 1.05, 40, 55), (0, 0, 0, 0.1, 0.3, 0, 0.8, 0), (0.4, 1.5, 0.2)),
    "open": ("aɑɐɒʌäɶ", (0.84, 1.3, 40, 55), (0, 0, 0, 0.15, 0.15, 0.25, 0, 0), (0.8, 1, 0.5)),
    "near-open": ("æ", (0.7, 0.95, 45, 45), (0, 0, 0, 0.4, 0.2, 0.25, 0, 0), (0.8, 1, 0.5)),
    "mid": ("eɛɜɘ", (0.89, 1.25, 35, 55), (0, 0, 0, 0.4, 0.15, 0.2, 0, 0), (0.9, 1, 0.5)),
    "close": ("iɪɨjʝᵻ", (0.9, 0.75, 30, 45), (0, 0, 0, 0.65, 0.15, 0.25, 0, 0.1), (1, 1, 0.5)),
    "back-mid": ("oɔɤɵ", (0.5, 1, 40, 50), (0.45, 0.25, 0, 0, 0, 0, 0, 0), (1, 1, 0.5)),
    "back-close": ("uʊɯɰ", (0.19, 1.15, 40, 65), (0.1, 0.85, 0, 0, 0, 0, 0, 0), (1.2, 1, 0.5)),
    "front-round": ("yʏøœɥ", (0.19, 1.15, 40, 65), (0.1, 0.85, 0, 0, 0, 0, 0, 0), (1.2, 1, 0.5)),
    "schwa": ("əɚɝɞ", (0.4, 0.6, 45, 45), (0.05, 0, 0, 0.1, 0.05, 0.1, 0, 0), (0.4, 0.6, 0.4)),
    "sibilant": ("szɕʑ", (0.52, 0.85, 60, 30), (0, 0, 0, 0.35, 0.2, 0.4, 0, 0), (0.5, 0.9, 0.6)),
    "postalveolar": ("ʃʒʂʐ", (0.8, 1, 45, 45), (0.6, 0.3, 0, 0, 0.15, 0.25, 0, 0), (1, 0.9, 0.5)),
    "alveolar": ("tdnɗʈɖɳɲɾɟc", (0.37, 0.45, 35, 35), (0, 0, 0, 0.15, 0.1, 0.2, 0, 0.35), (0.25, 0.5, 1)),
    "lateral": ("lɫɭʎɬ", (0.62, 0.95, 100, 45), (0, 0, 0, 0.15, 0.1, 0.15, 0, 0.6), (0.25, 0.5, 1)),
    "velar": ("kgɡŋxɣqhɦχʔʁħʕɢɴç", (0.5, 0.65, 45, 45), (0, 0, 0, 0.1, 0.05, 0.1, 0, 0), (0.15, 0.3, 0.3)),
    "rhotic": ("ɹrɻʀɽ", (0, 1.25, 50, 50), (0, 0.45, 0, 0, 0, 0.1, 0, 0.2), (0.6, 0.5, 0.7)),
    "glide": ("wʍβɸ", (0, 1.1, 50, 35), (0, 0.95, 0, 0, 0, 0, 0, 0), (1.3, 0.9, 0.4)),
    "dental": ("θð", (0.03, 1.7, 50, 60), (0, 0, 0, 0.15, 0.15, 0.2, 0, 0.9), (0.35, 0.8, 1.3)),
}
_CLASS_OF = {letter: name for name, (letters, *_) in _CLASSES.items() for letter in letters}
# Silence: closed, but it lets the neighbours reach into it.
_REST_PART = (0, 0.4, 40, 30)
_REST = (np.zeros(8), np.full(8, 0.45))


def _shape(letter: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets and dominances of one IPA letter, per channel but the first."""
    _, _, targets, (lips, height, tongue) = _CLASSES[_CLASS_OF[letter]]
    return np.array(targets), np.array([lips, lips, height, lips, height, height, height, tongue])


def segments(phonemes: tuple[Phoneme, ...]) -> list[tuple[float, float, str]]:
    """(start, end, letter): each phoneme cut into its articulations, "aɪ" into an open and a close vowel."""
    pieces = []
    for start, end, ipa in phonemes:
        letters = [letter for letter in re.sub(r".͡", "", ipa) if letter in _CLASS_OF]
        bounds = np.linspace(start, end, len(letters) + 1)
        pieces += [(a, b, letter) for a, b, letter in zip(bounds[:-1], bounds[1:], letters, strict=True)]
    return pieces


def loudness(waveform: np.ndarray) -> np.ndarray:
    """RMS in windows of 40 ms at `CURVE_RATE`, float32 [ceil(seconds · 100)]; value k is at time k / 100 s."""
    from scipy.ndimage import uniform_filter1d

    step = RATE // CURVE_RATE
    power = uniform_filter1d(np.square(waveform.astype(np.float64)), 4 * step, mode="constant")
    return np.sqrt(np.maximum(power[::step], 0)).astype(np.float32)


def curves(utterance: Utterance) -> np.ndarray:
    """Viseme curves of a clean utterance: float32 [ceil(seconds · 100), 9], value k at time k / 100 s.

    Compute them before `augment`: loudness scales how far lips part by 0.7 to 1.2, and what is silent for `PAUSE` or
    longer is exactly zero but for a tenth of a second at its ends. In /p b m/ lips part by less than 0.05 and in /f v/
    by less than 0.1. The lips of a speaker who was seen part as they did, also in silence.
    """
    from scipy.ndimage import gaussian_filter1d

    energy = loudness(utterance.waveform)
    count, rate = len(energy), CURVE_RATE * _FINE
    targets, dominance = np.tile(_REST[0], (count * _FINE, 1)), np.tile(_REST[1], (count * _FINE, 1))
    closure = np.zeros((count * _FINE, 2))
    for start, end, letter in segments(utterance.phonemes):
        where = slice(max(round((start - _LEAD) * rate), 0), max(round((end - _LEAD) * rate), 0))
        targets[where], dominance[where] = _shape(letter)
        if (name := _CLASS_OF[letter]) in ("bilabial", "labiodental"):
            half = max(end - start, _CLOSURE_LEAST) / 2
            middle = (start + end) / 2 - _LEAD
            channel = 0 if name == "bilabial" else 1
            closure[max(round((middle - half) * rate), 0) : max(round((middle + half) * rate), 0), channel] = 1

    def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
        return gaussian_filter1d(values, sigma * rate, axis=0, mode="nearest")[::_FINE]

    others = smooth(targets * dominance, _SIGMA) / smooth(dominance, _SIGMA)
    lips, teeth = np.clip(1.6 * smooth(closure, _CLOSURE_SIGMA), 0, 1).T
    parting = _parting(utterance.phonemes, count) * _emphasis(energy) * (1 - 0.85 * teeth)
    shapes = np.column_stack([parting, others])
    shapes[:, 1:3] *= (1 - 0.5 * lips - 0.5 * teeth)[:, None]
    shapes[:, 5:7] *= (1 - lips)[:, None]
    shapes[:, 3] = 0.7 * lips
    shapes[:, 7] = 0.8 * teeth * (1 - lips)
    shapes *= _speaking(utterance.phonemes, energy)[:, None]
    if utterance.seen:  # lips part before the first sound, too
        times, seen = zip(*utterance.seen, strict=True)
        shapes[:, 0] = np.maximum(np.interp(np.arange(count) / CURVE_RATE, times, seen) - _JITTER, 0)
    shapes[:, 0] *= 1 - lips
    return shapes.astype(np.float32)


def _parting(phonemes: tuple[Phoneme, ...], count: int) -> np.ndarray:
    """How far lips part [n], before loudness: each class of sounds reaches as far as it is fitted to."""
    from scipy.signal import fftconvolve

    classes = [_REST_PART, *(part for _, part, _, _ in _CLASSES.values())]
    said = np.zeros(count, int)
    for start, end, letter in segments(phonemes):
        first, last = (max(round((time - _LEAD) * CURVE_RATE), 0) for time in (start, end))
        said[first:last] = 1 + list(_CLASSES).index(_CLASS_OF[letter])
    present = np.unique(said)
    target, dominance, before, after = (column[:, None] for column in np.array(classes, float)[present].T)
    offset = np.arange(-_WIDEST, _WIDEST + 1) * 1000 / CURVE_RATE
    weight = dominance * np.exp(-0.5 * np.square(offset / np.where(offset < 0, before, after)))
    where = np.pad((said == present[:, None]).astype(float), ((0, 0), (_WIDEST, _WIDEST)), mode="edge")
    reach = fftconvolve(where, weight, mode="valid", axes=1)
    return (target * reach).sum(0) / reach.sum(0)


def _emphasis(energy: np.ndarray) -> np.ndarray:
    """0.7 for soft to 1.2 for loud words of an utterance, by the square root of loudness over its median."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(energy, 0.4 * CURVE_RATE)
    voiced = smooth[energy > 0.1 * energy.max(initial=0)]
    typical = np.median(voiced) if len(voiced) else 1.0
    return np.clip(np.sqrt(smooth / max(typical, 1e-6)), 0.7, 1.2)


def _speaking(phonemes: tuple[Phoneme, ...], energy: np.ndarray) -> np.ndarray:
    """1 in speech, exactly 0 in pauses but for smooth ends: [n] at `CURVE_RATE`."""
    times = np.arange(len(energy)) / CURVE_RATE
    silent = np.ones(len(energy), bool)
    for start, end, _ in phonemes:
        silent[(times >= start - 1e-6) & (times < end)] = False
    silent |= energy < 0.01 * energy.max(initial=0)
    edges = np.flatnonzero(np.diff(np.pad(silent, 1).astype(int)))
    gate = np.ones(len(energy))
    for first, last in edges.reshape(-1, 2):
        if last - first >= round(PAUSE * CURVE_RATE):
            inside = np.minimum(times - times[first], times[last - 1] - times)[first:last]
            if first == 0:
                inside = (times[last - 1] - times)[first:last]
            elif last == len(energy):
                inside = (times - times[first])[first:last]
            if first == 0 and last == len(energy):
                inside = np.full(last, _SETTLE)
            gate[first:last] = 0.5 + 0.5 * np.cos(np.pi * np.clip(inside / _SETTLE, 0, 1))
    return gate


# channel → ARKit actions (both sides where there are two) with their share of the channel. What parts the rig's lips
# is the jaw, and somewhat what funnels and bares teeth: so much less of the jaw is needed then.
_ARKIT = {
    "part": {"jawOpen": 0.56},  # a full jawOpen is a shout
    "funnel": {"mouthFunnel": 1.0, "jawOpen": -0.43},
    "pucker": {"mouthPucker": 1.0},
    "press": {"mouthPress": 0.6, "mouthRollLower": 0.35, "mouthRollUpper": 0.3},
    "wide": {"mouthStretch": 0.5, "mouthSmile": 0.15},
    "upup": {"mouthUpperUp": 1.0, "jawOpen": -0.13},
    "lowdn": {"mouthLowerDown": 1.0, "jawOpen": -0.11},
    "roll": {"mouthRollLower": 1.0, "mouthUpperUp": 0.15},
    "tongue": {"tongueOut": 0.12},
}
_TO_ARKIT_CK = np.array(
    [
        [_ARKIT[channel].get(action.removesuffix("Left").removesuffix("Right"), 0.0) for action in ACTIONS]
        for channel in VISEME_CHANNELS
    ],
    np.float32,
)


def to_arkit(curves_TC: np.ndarray, style_C: np.ndarray | float = 1.0) -> np.ndarray:
    """Weights of the 52 ARKit actions (order of `rig.ACTIONS`), float32 [T, 52] in [0, 1], for viseme curves [T, 9].

    `style_C` scales the channels: how widely this person opens, rounds or stretches the mouth.
    """
    return np.clip((curves_TC * style_C) @ _TO_ARKIT_CK, 0, 1).astype(np.float32)
