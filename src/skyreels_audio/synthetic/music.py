"""Music in which nobody sings: chords, a bass and a beat. What a mouth must not answer to."""

import numpy as np

from skyreels_audio.synthetic.speech import RATE

SCALE = np.array([0, 2, 4, 5, 7, 9, 11])


def music(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Float32 at 16 kHz, peak 1: notes of a random key, tempo and timbre, with or without a bass and drums."""
    count, beat = round(seconds * RATE), rng.uniform(0.25, 0.8)
    time = np.arange(count) / RATE
    out = np.zeros(count, np.float64)
    root, harmonics = rng.uniform(40, 57), 1 / np.arange(1, 7) ** rng.uniform(0.8, 2.2)

    def note(pitch: float, start: float, length: float, volume: float) -> None:
        first = int(start * RATE)
        t = time[: max(min(int(length * RATE), count - first), 0)]
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        tone = sum(h * np.sin(2 * np.pi * k * frequency * t) for k, h in enumerate(harmonics, 1))
        envelope = np.minimum(t / 0.01, 1) * np.exp(-t / rng.uniform(0.15, 0.9))
        out[first : first + len(t)] += volume * tone * envelope

    drums, bass = rng.random() < 0.6, rng.random() < 0.7
    for step, start in enumerate(np.arange(0, seconds, beat)):
        degree = int(rng.integers(7))
        if step % 4 == 0:
            for third in (0, 2, 4):
                note(root + 12 + SCALE[(degree + third) % 7], start, 4 * beat, 0.25)
        if bass:
            note(root - 12 + SCALE[degree], start, beat, 0.4)
        if rng.random() < 0.7:
            note(root + 24 + SCALE[int(rng.integers(7))], start + beat * rng.choice([0, 0.5]), beat, 0.35)
        if drums:
            first = int(start * RATE)
            t = time[: max(min(int(0.12 * RATE), count - first), 0)]
            hit = rng.normal(size=len(t)) if step % 2 else np.sin(2 * np.pi * 60 * t)
            out[first : first + len(t)] += 0.5 * hit * np.exp(-t / 0.03)
    return (out / max(np.abs(out).max(), 1e-6)).astype(np.float32)
