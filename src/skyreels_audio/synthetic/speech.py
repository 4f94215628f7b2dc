"""What a voice says and when: a waveform with its phonemes' times, and changes to both that keep them together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skyreels_audio.media import SAMPLE_RATE as RATE

Phoneme = tuple[float, float, str]


@dataclass(frozen=True)
class Utterance:
    """A piece of speech.

    `waveform` is float32 [n] at 16 kHz in [-1, 1]; `phonemes` are (start, end, IPA), in seconds and in order; whatever
    no phoneme covers is silence. `voice` names the engine and the speaker ("espeak:m3", "flite:slt"). `seen`: of a
    speaker who was filmed, (time, how far the lips part, as the first channel of `visemes.curves`).
    """

    waveform: np.ndarray
    phonemes: tuple[Phoneme, ...]
    text: str
    language: str
    voice: str
    seen: tuple[tuple[float, float], ...] = ()

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / RATE


def resample(waveform: np.ndarray, ratio: float) -> np.ndarray:
    """The waveform with `ratio` times as many samples (to one part in a thousand), band-limited."""
    from fractions import Fraction

    from scipy.signal import resample_poly

    fraction = Fraction(ratio).limit_denominator(1000)
    return resample_poly(waveform, fraction.numerator, fraction.denominator).astype(np.float32)


def concatenate(utterances: Sequence[Utterance], gaps: Sequence[float]) -> Utterance:
    """Joins utterances of one voice with silences: `gaps` (seconds) has one before each of them and one at the end."""
    assert len(gaps) == len(utterances) + 1
    pieces, phonemes, seen = [np.zeros(round(gaps[0] * RATE), np.float32)], [], []
    time = round(gaps[0] * RATE) / RATE
    for utterance, gap in zip(utterances, gaps[1:], strict=True):
        silence = np.zeros(round(gap * RATE), np.float32)
        phonemes += [(start + time, end + time, ipa) for start, end, ipa in utterance.phonemes]
        seen += [(at + time, parted) for at, parted in utterance.seen]
        pieces += [utterance.waveform, silence]
        time += (len(utterance.waveform) + len(silence)) / RATE
    text = ". ".join(utterance.text for utterance in utterances)
    waveform = np.concatenate(pieces)
    return replace(utterances[0], waveform=waveform, phonemes=tuple(phonemes), text=text, seen=tuple(seen))


def replay(utterance: Utterance, speed: float) -> Utterance:
    """Plays an utterance faster (`speed` > 1: also higher, a smaller speaker) or slower, phoneme times included."""
    waveform = resample(utterance.waveform, 1 / speed)
    stretch = len(waveform) / len(utterance.waveform)
    return replace(
        utterance,
        waveform=waveform,
        phonemes=tuple((start * stretch, end * stretch, ipa) for start, end, ipa in utterance.phonemes),
        seen=tuple((at * stretch, parted) for at, parted in utterance.seen),
    )


def cut(utterance: Utterance, start: float, seconds: float) -> Utterance:
    """The stretch of an utterance from `start` on, padded with silence where it ends early; the text stays whole."""
    first, count = round(start * RATE), round(seconds * RATE)
    waveform = utterance.waveform[first : first + count]
    phonemes = tuple(
        (max(a - start, 0.0), min(b - start, seconds), ipa)
        for a, b, ipa in utterance.phonemes
        if b > start and a < start + seconds
    )
    seen = tuple((at - start, parted) for at, parted in utterance.seen)
    return replace(utterance, waveform=np.pad(waveform, (0, count - len(waveform))), phonemes=phonemes, seen=seen)


def augment(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same speech through another room, microphone and line: each change is drawn at random, none moves a sample.

    Reverberation 80 to 400 ms (its direct sound stays at lag 0), band limits, white, pink or humming noise 15 to 40 dB
    below the speech (in the pauses too), and a gain. A quarter of all waveforms only change their loudness.
    """
    from scipy.signal import butter, fftconvolve, sosfilt

    out = waveform.astype(np.float32)
    if rng.random() > 0.25:
        if rng.random() < 0.4:
            tail_seconds = rng.uniform(0.08, 0.4)
            times = np.arange(round(tail_seconds * RATE)) / RATE
            tail = rng.normal(size=len(times)) * np.exp(-6.9 * times / tail_seconds)  # -60 dB at its end
            tail *= rng.uniform(0.1, 0.5) / np.linalg.norm(tail)
            tail[0] = 1.0
            out = fftconvolve(out, tail)[: len(out)]
        if rng.random() < 0.4:
            band = [rng.uniform(40, 300), rng.uniform(3000, 7500)]
            out = np.asarray(sosfilt(butter(2, band, "bandpass", fs=RATE, output="sos"), out))
        if rng.random() < 0.7:
            noise = _noise(len(out), rng)
            out = out + noise * np.sqrt(np.mean(np.square(out))) * 10 ** (-rng.uniform(15, 40) / 20)
    peak = float(np.abs(out).max())
    return (out * (rng.uniform(0.15, 0.95) / max(peak, 1e-6))).astype(np.float32) if peak else np.zeros_like(out)


def _noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """White or pink noise, or mains hum with its harmonics, of unit power."""
    kind = rng.integers(3)
    if kind == 2:
        time, mains = np.arange(samples) / RATE, rng.choice([50.0, 60.0])
        noise = sum(np.sin(2 * np.pi * (k * mains * time + rng.random())) / k for k in range(1, 6)) + 0.0
    else:
        noise = rng.normal(size=samples)
        if kind == 1:
            spectrum = np.fft.rfft(noise)
            noise = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), samples)
    return noise / np.sqrt(np.mean(np.square(noise)))
