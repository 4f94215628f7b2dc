"""Mouth shapes of speech: phonemes with times and loudness → nine viseme curves → ARKit face actions.

Coarticulation is a dominance model (Cohen & Massaro, 1993): every phoneme has a target per channel and a dominance that
says how much it insists on it; the curve is the dominance-weighted mean of the targets in a Gaussian neighbourhood.
A /t/ hardly cares about rounding, so the /u/ after it is rounded in time; a /p/ insists on closed lips.
"""

import re

import numpy as np

from skyreels_audio.synthetic.rig import ACTIONS
from skyreels_audio.synthetic.speech import RATE, Phoneme, Utterance

CURVE_RATE = 100  # curve values per second
VISEME_CHANNELS = ("jaw", "funnel", "pucker", "press", "wide", "upup", "lowdn", "roll", "tongue")
PAUSE = 0.25  # seconds; from here on a silence closes and stills the mouth
_SETTLE = 0.1  # seconds at both ends of a pause in which the mouth closes and opens
_LEAD = 0.02  # seconds by which the articulators are ahead of the sound

_FINE = 4  # internal steps per curve value
_SIGMA = 0.030  # seconds, of coarticulation
_CLOSURE_SIGMA = 0.014
_CLOSURE_LEAST = 0.07  # seconds for which lips stay together in a fast /b/

# class: (IPA letters, targets, dominance). Targets: jaw funnel pucker press wide upup lowdn roll tongue.
# Dominance: of the jaw, of lip shape (funnel, pucker, wide), of lip height (upup, lowdn), of the tongue.
_CLASSES: dict[str, tuple[str, tuple[float, ...], tuple[float, float, float, float]]] = {
    "bilabial": ("pbmɓʙ", (0.05, 0, 0, 0.7, 0, 0, 0, 0, 0), (0.8, 0.2, 1.5, 0.2)),
    "labiodental": ("fvʋɱ", (0.08, 0, 0, 0, 0.1, 0.3, 0, 0.8, 0), (0.9, 0.4, 1.5, 0.2)),
    "open": ("aɑɐɒʌäɶ", (0.75, 0, 0, 0, 0.15, 0.15, 0.25, 0, 0), (1, 0.8, 1, 0.5)),
    "near-open": ("æ", (0.62, 0, 0, 0, 0.4, 0.2, 0.25, 0, 0), (1, 0.8, 1, 0.5)),
    "mid": ("eɛɜɘ", (0.42, 0, 0, 0, 0.4, 0.15, 0.2, 0, 0), (1, 0.9, 1, 0.5)),
    "close": ("iɪɨjʝᵻ", (0.18, 0, 0, 0, 0.65, 0.15, 0.25, 0, 0.1), (0.9, 1, 1, 0.5)),
    "back-mid": ("oɔɤɵ", (0.48, 0.6, 0.25, 0, 0, 0, 0, 0, 0), (1, 1, 1, 0.5)),
    "back-close": ("uʊɯɰ", (0.2, 0.3, 0.85, 0, 0, 0, 0, 0, 0), (0.9, 1.2, 1, 0.5)),
    "front-round": ("yʏøœɥ", (0.2, 0.25, 0.85, 0, 0, 0, 0, 0, 0), (0.9, 1.2, 1, 0.5)),
    "schwa": ("əɚɝɞ", (0.3, 0.05, 0, 0, 0.1, 0.05, 0.1, 0, 0), (0.6, 0.4, 0.6, 0.4)),
    "sibilant": ("szɕʑ", (0.06, 0, 0, 0, 0.35, 0.2, 0.4, 0, 0), (1.1, 0.5, 0.9, 0.6)),
    "postalveolar": ("ʃʒʂʐ", (0.1, 0.75, 0.3, 0, 0, 0.15, 0.25, 0, 0), (1, 1, 0.9, 0.5)),
    "alveolar": ("tdnɗʈɖɳɲɾɟc", (0.14, 0, 0, 0, 0.15, 0.1, 0.2, 0, 0.35), (0.7, 0.25, 0.5, 1)),
    "lateral": ("lɫɭʎɬ", (0.26, 0, 0, 0, 0.15, 0.1, 0.15, 0, 0.6), (0.6, 0.25, 0.5, 1)),
    "velar": ("kgɡŋxɣqhɦχʔʁħʕɢɴç", (0.25, 0, 0, 0, 0.1, 0.05, 0.1, 0, 0), (0.35, 0.15, 0.3, 0.3)),
    "rhotic": ("ɹrɻʀɽ", (0.2, 0.35, 0.35, 0, 0, 0, 0.1, 0, 0.2), (0.6, 0.6, 0.5, 0.7)),
    "glide": ("wʍβɸ", (0.12, 0.2, 0.95, 0, 0, 0, 0, 0, 0), (0.9, 1.3, 0.9, 0.4)),
    "dental": ("θð", (0.15, 0, 0, 0, 0.15, 0.15, 0.2, 0, 0.9), (0.9, 0.35, 0.8, 1.3)),
}
_CLASS_OF = {letter: name for name, (letters, _, _) in _CLASSES.items() for letter in letters}
_REST = (np.zeros(9), np.full(9, 0.45))  # silence: closed, but it lets the neighbours reach into it


def _shape(letter: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets and dominances of one IPA letter, per channel."""
    _, targets, (jaw, lips, height, tongue) = _CLASSES[_CLASS_OF[letter]]
    return np.array(targets), np.array([jaw, lips, lips, height, lips, height, height, height, tongue])


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

    Compute them before `augment`: loudness scales the jaw by 0.7 to 1.2, and what is silent for `PAUSE` or longer is
    exactly zero but for a tenth of a second at its ends. In /p b m/ the jaw goes below 0.05 and in /f v/ below 0.1.
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

    shapes = smooth(targets * dominance, _SIGMA) / smooth(dominance, _SIGMA)
    lips, teeth = np.clip(1.6 * smooth(closure, _CLOSURE_SIGMA), 0, 1).T
    scale = _emphasis(energy)
    shapes[:, 0] *= scale * (1 - lips) * (1 - 0.85 * teeth)
    shapes[:, 1:3] *= (1 - 0.5 * lips - 0.5 * teeth)[:, None]
    shapes[:, 5:7] *= (1 - lips)[:, None]
    shapes[:, 3] = 0.7 * lips
    shapes[:, 7] = 0.8 * teeth * (1 - lips)
    return (shapes * _speaking(utterance.phonemes, energy)[:, None]).astype(np.float32)


def _emphasis(energy: np.ndarray) -> np.ndarray:
    """0.7 for soft to 1.2 for loud stretches of an utterance, by the square root of loudness over its median."""
    from scipy.ndimage import gaussian_filter1d

    voiced = energy[energy > 0.1 * energy.max(initial=0)]
    typical = np.median(voiced) if len(voiced) else 1.0
    return np.clip(np.sqrt(gaussian_filter1d(energy, 0.08 * CURVE_RATE) / max(typical, 1e-6)), 0.7, 1.2)


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
# is the jaw; in 24 clips of a GRID speaker lips were as far apart for s, t and ee, which bare teeth, and less in
# rounded mouths: with the jaw alone the distance of the lips followed his with r = 0.62, with these shares 0.72.
_ARKIT = {
    "jaw": {"jawOpen": 0.56},  # a full jawOpen is a shout
    "funnel": {"mouthFunnel": 1.0, "jawOpen": -0.2},
    "pucker": {"mouthPucker": 1.0},
    "press": {"mouthPress": 0.6, "mouthRollLower": 0.35, "mouthRollUpper": 0.3},
    "wide": {"mouthStretch": 0.5, "mouthSmile": 0.15},
    "upup": {"mouthUpperUp": 1.0},
    "lowdn": {"mouthLowerDown": 1.0, "jawOpen": 0.4},
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
