"""A pool of clips with planted faults for ``benchmarks/curation.py``: one file per fault and base clip, and the truth.

Pictures and sound are changed as arrays and encoded again as H.264 and FLAC in MP4. Clean base clips are encoded again
too, so that the encoding tells nothing.
"""

import json
import wave
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from skyreels_audio.media import VideoWriter, read_audio, read_video

FPS, RATE = 25, 16_000
SIDE = 256  # pixels of every base clip: faults put two of them together
SHIFTS = (-15, -12, -9, -6, -4, -3, 3, 4, 6, 9, 12, 15)  # frames


@dataclass(frozen=True)
class Truth:
    """What was planted. half: "A" to set thresholds on, "B" to measure on; real: footage, not rendered."""

    file: str
    fault: str
    half: str
    real: bool
    value: float | None = None  # frames of a shift or of what an offset wanders; the second of a cut
    base: str | None = None  # the clip that it was made of


@dataclass
class Base:
    """A synchronous clip: frames uint8 [F, H, W, 3], sound float32 at 16 kHz."""

    name: str
    frames: np.ndarray
    sound: np.ndarray
    real: bool


def read_base(path: Path, real: bool, seconds: float | None = None) -> Base:
    frames = list(read_video(path, FPS))[: None if seconds is None else round(seconds * FPS)]
    frames = np.stack([np.asarray(Image.fromarray(frame).resize((SIDE, SIDE))) for frame in frames])
    sound = read_audio(path, RATE)
    return Base(path.stem, frames, fit_sound(sound, len(frames)), real)


def plant(fault: str, base: Base, other: Base, rng: np.random.Generator, index: int) -> tuple[Base, float | None]:
    """The base clip with a fault, and its size where that is a number. ``other`` is somebody else."""
    frames, sound, value = base.frames, base.sound, None
    if fault in _PICTURE:
        frames = _PICTURE[fault](frames, other.frames, rng)
    elif fault in _SOUND:
        sound = _SOUND[fault](sound, other.sound, rng)
    elif fault == "cut":
        at = round(len(frames) * rng.uniform(0.4, 0.6))
        frames = np.concatenate([frames[:at], np.resize(other.frames, frames.shape)[at:]])
        value = at / FPS
    elif fault == "shift":
        value = float(SHIFTS[index % len(SHIFTS)])
        sound = late(sound, int(value))
    elif fault == "wander":
        value = float(rng.integers(8, 13))
        sound = wandering(sound, int(value))
    elif fault == "dubbed":
        sound = fit_sound(other.sound[::-1] if other.name == base.name else other.sound, len(frames))
    elif fault == "no audio":
        sound = np.empty(0, np.float32)
    elif fault != "clean":
        raise ValueError(fault)
    return Base(base.name, frames, sound, base.real), value


def late(sound: np.ndarray, frames: int) -> np.ndarray:
    """The sound so many frames later (negative: earlier), silence where it has none."""
    samples = frames * RATE // FPS
    out = np.zeros_like(sound)
    if samples >= 0:
        out[samples:] = sound[: len(sound) - samples]
    else:
        out[:samples] = sound[-samples:]
    return out


def wandering(sound: np.ndarray, frames: int) -> np.ndarray:
    """The sound from ``frames`` / 2 early to ``frames`` / 2 late, slower and slower than the picture."""
    n = len(sound)
    shift = np.linspace(-frames / 2, frames / 2, n) * RATE / FPS
    return np.interp(np.arange(n) - shift, np.arange(n), sound, left=0, right=0).astype(np.float32)


def tune(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Music: chords of a progression, a melody over them, sometimes drums. Peak 1."""
    out = np.zeros(samples)
    beat = int(RATE * 60 / rng.uniform(80, 140))
    key, kind = 110 * 2 ** (rng.integers(12) / 12), rng.integers(3)
    for number, start in enumerate(range(0, samples, beat)):
        length = min(beat * (1 if kind == 1 else 2), samples - start)
        t = np.arange(length) / RATE
        chord = [0, 4, 7] if (number // 4) % 2 else [5, 9, 12]
        if number % 4 == 0 or kind == 1:
            hold = min(4 * beat, samples - start)
            s = np.arange(hold) / RATE
            for step in chord:
                out[start : start + hold] += 0.5 * _tone(key * 2 ** (step / 12), s, rng) * np.exp(-0.4 * s)
        melody = key * 4 * 2 ** (rng.choice([0, 2, 4, 7, 9]) / 12)
        out[start : start + length] += 0.6 * _tone(melody, t, rng) * np.exp(-3 * t)
        if kind == 2:
            hit = rng.normal(size=min(1600, samples - start))
            out[start : start + len(hit)] += 0.8 * hit * np.exp(-np.arange(len(hit)) / 300)
    return (out / np.abs(out).max()).astype(np.float32)


def _tone(hertz: float, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    attack = np.minimum(1, t / 0.01)
    return attack * sum(np.sin(2 * np.pi * hertz * k * t) / k**1.5 for k in range(1, 5))


def _music(sound, other, rng):
    level = 10 ** (rng.uniform(-14, -2) / 20)  # against the voice
    accompaniment = tune(len(sound), rng)
    return _level(sound + accompaniment * level * _rms(sound) / _rms(accompaniment))


def _two_voices(sound, other, rng):
    other = np.resize(other, len(sound)) * _rms(sound) / max(_rms(other), 1e-6)
    if rng.random() < 0.3:  # at once
        return _level(sound + other)
    at = round(len(sound) * rng.uniform(0.4, 0.6))  # in turn
    return np.concatenate([sound[:at], other[at:]]).astype(np.float32)


def _telephone(sound, other, rng):
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    return np.fft.irfft(spectrum * ((hertz > 300) & (hertz < 3400)), len(sound)).astype(np.float32)


def _noisy(sound, other, rng):
    noise = rng.normal(size=len(sound)).astype(np.float32)
    return _level(sound + noise * _rms(sound) * 10 ** (-rng.uniform(2, 8) / 20))


_SOUND: dict[str, Callable[..., np.ndarray]] = {
    "music": _music,
    "two speakers": _two_voices,
    "telephone": _telephone,
    "noisy sound": _noisy,
    "clipping": lambda sound, other, rng: np.clip(sound / _rms(sound) * 0.6, -1, 1).astype(np.float32),
    "silence": lambda sound, other, rng: (1e-3 * rng.normal(size=len(sound))).astype(np.float32),
}


def _beside(frames, other, rng):
    pair = [frames, np.resize(other, frames.shape)][:: rng.choice([1, -1])]
    return np.concatenate(pair, axis=2)


def _no_face(frames, other, rng):
    noise, field = rng.normal(size=(frames.shape[1], frames.shape[2] * 2, 3)), 0.0
    for scale in (1, 3, 9):  # coarse and fine, as surfaces have it
        part = gaussian_filter(noise, (scale, scale, 0))
        field = field + part / part.std() * scale
    field = (127 + field / np.std(field) * 45).clip(0, 255).astype(np.uint8)
    return np.stack([field[:, k % frames.shape[2] :][:, : frames.shape[2]] for k in range(len(frames))])


def _subtitles(frames, other, rng):
    words = ["you can see it there", "bin blue at f two now", "what we said before", "nobody knows the answer"]
    picture = Image.new("L", (frames.shape[2], frames.shape[1]))
    size = int(rng.integers(13, 19))
    place = (frames.shape[2] / 2, frames.shape[1] - size * 0.9)
    font = ImageFont.load_default(size)
    outline = Image.new("L", picture.size)
    said = str(rng.choice(words))
    ImageDraw.Draw(outline).text(place, said, fill=255, font=font, anchor="ms", stroke_width=1)
    ImageDraw.Draw(picture).text(place, said, fill=255, font=font, anchor="ms")
    dark, bright = (np.asarray(each, np.float32)[..., None] / 255 for each in (outline, picture))
    return (frames * (1 - dark) + 255 * bright).clip(0, 255).astype(np.uint8)


def _letterbox(frames, other, rng):
    bar = round(frames.shape[1] * rng.uniform(0.08, 0.18))
    out = frames.copy()
    out[:, :bar], out[:, -bar:] = 0, 0
    return out


def _small_face(frames, other, rng):
    background = _no_face(frames[:1], other, rng)[0]
    side = round(frames.shape[1] * 0.26)
    left, top = rng.integers(0, frames.shape[2] - side), rng.integers(0, frames.shape[1] - side)
    out = np.repeat(background[None], len(frames), axis=0)
    for k, frame in enumerate(frames):
        out[k, top : top + side, left : left + side] = np.asarray(Image.fromarray(frame).resize((side, side)))
    return out


_PICTURE: dict[str, Callable[..., np.ndarray]] = {
    "two faces": _beside,
    "no face": _no_face,
    "small face": _small_face,
    "subtitles": _subtitles,
    "letterbox": _letterbox,
    "static": lambda frames, other, rng: np.repeat(frames[:1], len(frames), axis=0),
    "blur": lambda frames, other, rng: gaussian_filter(frames, (0, s := rng.uniform(2, 3.5), s, 0)),
    "dark": lambda frames, other, rng: (frames * rng.uniform(0.06, 0.14)).astype(np.uint8),
    "noise": lambda frames, other, rng: (
        (frames + rng.normal(size=frames.shape, scale=rng.uniform(12, 20))).clip(0, 255).astype(np.uint8)
    ),
    "duplicate frames": lambda frames, other, rng: frames[np.arange(len(frames)) // 3 * 3],
}

ARRAYS = ("clean", *_PICTURE, *_SOUND, "cut", "shift", "wander", "dubbed", "no audio")
FILES = ("truncated", "wrong extension", "zero bytes", "8K", "near duplicate")


def write_clip(path: Path, clip: Base, crf: int = 17) -> None:
    height, width = clip.frames.shape[1:3]
    sound = path.with_suffix(".wav") if len(clip.sound) else None
    if sound is not None:
        with wave.open(str(sound), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((clip.sound.clip(-1, 1) * 32767).astype(np.int16).tobytes())
    with VideoWriter(path, width, height, FPS, audio=sound, duration=len(clip.frames) / FPS, crf=crf) as video:
        for frame in clip.frames:
            video.write(frame)
    if sound is not None:
        sound.unlink()


def make_pool(bases: dict[str, list[Base]], out: Path, each: int, seed: int = 0) -> list[Truth]:
    """Write the pool: of every fault ``each`` files from each half's base clips. Goes on where it was interrupted."""
    out.mkdir(parents=True, exist_ok=True)
    truths = []
    for half, clips in bases.items():
        for number, fault in enumerate((*ARRAYS, *FILES)):
            count = {"clean": 2 * each, "8K": 1, "shift": len(SHIFTS)}.get(fault, each)
            for index in range(count):
                rng = np.random.default_rng([seed, ord(half), number, index])
                at = (index if fault == "near duplicate" else number + index) % len(clips)  # clean is number 0
                base = clips[at]
                different = [clip for clip in clips if clip.real != base.real] or [c for c in clips if c is not base]
                other = different[int(rng.integers(len(different)))]
                name = f"{half}-{fault.replace(' ', '_')}-{index:02d}.mp4"
                value = _write_fault(out / name, fault, base, other, rng, index)
                truths.append(Truth(name, fault, half, base.real, value, base.name))
    (out / "truth.json").write_text(json.dumps([asdict(truth) for truth in truths], indent=1))
    return truths


def _write_fault(path: Path, fault: str, base: Base, other: Base, rng, index: int) -> float | None:
    if fault in ARRAYS:
        clip, value = plant(fault, base, other, rng, index)
        if not path.exists():
            write_clip(path, clip)
        return value
    if path.exists():
        return None
    if fault == "8K":
        big = np.repeat(np.repeat(base.frames[:2], 17, axis=1), 30, axis=2)[:, :4320, :7680]
        write_clip(path, Base(base.name, big, base.sound[: RATE // 10], base.real), crf=40)
    elif fault == "near duplicate":  # of a clip that the pool has as clean too: smaller, and compressed again
        small = np.stack([np.asarray(Image.fromarray(frame).resize((208, 208))) for frame in base.frames])
        write_clip(path, Base(base.name, small, base.sound, base.real), crf=26)
    elif fault == "truncated":
        write_clip(path, base)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * rng.uniform(0.4, 0.8))])
    elif fault == "wrong extension":
        Image.fromarray(base.frames[0]).save(path, format=("PNG", "JPEG")[index % 2])
    else:
        path.write_bytes(b"")
    return None


def fit_sound(sound: np.ndarray, frames: int) -> np.ndarray:
    """The sound as long as the frames, cut or with silence at its end."""
    samples = round(frames * RATE / FPS)
    return np.pad(sound[:samples], (0, max(0, samples - len(sound))))


def _rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.square(sound).mean())) + 1e-9


def _level(sound: np.ndarray) -> np.ndarray:
    return (sound * min(1.0, 0.95 / float(np.abs(sound).max()))).astype(np.float32)
