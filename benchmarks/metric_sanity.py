"""Whether the metrics can fail: good videos are spoilt step by step, and each metric must notice its own faults alone.

    python benchmarks/metric_sanity.py [--footage FOLDER] [--clips 2]

The good videos are rendered people with exact labels, and clips of --footage (real people who talk). Every fault is
planted at several strengths; its metric must move in the right direction at each, and the others must stay where they
were. Prints a table and writes docs/results/metric_sanity.json and .md. Measured clips are remembered in --work.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from table import Row, plain, write

from skyreels_audio import media
from skyreels_audio.evaluation.cases import Case
from skyreels_audio.evaluation.held_out import speaking_motion, true_video, voice
from skyreels_audio.evaluation.lips import mouth_box
from skyreels_audio.evaluation.measure import Networks, Seen, measure
from skyreels_audio.evaluation.metrics import METRICS
from skyreels_audio.evaluation.prepare import write_sound
from skyreels_audio.evaluation.protocol import Protocol
from skyreels_audio.evaluation.subjects import drawn

ROOT = Path(__file__).parents[1]
PROTOCOL = Protocol(name="sanity", task="edit", width=256, height=256, frames=50, crop="none")
RATE, FPS = 16000, 25
Video = tuple[np.ndarray, np.ndarray]  # frames [F, H, W, 3] and sound [n]


@dataclass(frozen=True)
class Good:
    """A good video: frames, sound, landmarks [F, 68, 2], and where there is one another person who says the same."""

    name: str
    frames: np.ndarray
    sound: np.ndarray
    points: np.ndarray
    other: np.ndarray | None


@dataclass(frozen=True)
class Fault:
    """``plant(good, strength)`` spoils; ``tells``: the metrics that must follow it, with the sign of their change.

    ``spares``: metrics that must not move by more than ``TOLERANCE``.
    """

    strengths: tuple[float, ...]
    plant: Callable[[Good, float], Video]
    tells: dict[str, int]
    spares: tuple[str, ...]


PICTURE = ("sharpness", "mouth_sharpness", "psnr", "lip_colour", "flicker", "identity")
LIPS = ("lips_r", "lip_distance", "lips_amplitude")
# How far a metric may move, by a fault that is not its own, and still "stay where it was".
TOLERANCE = {
    "sharpness": 0.03, "mouth_sharpness": 0.1, "psnr": 3.0, "lip_colour": 1.5, "flicker": 0.4, "identity": 0.1,
    "lips_r": 0.1, "lip_distance": 0.6, "lips_amplitude": 0.15, "sound_offset": 10.0, "repeated": 0.05, "tiles": 0.06,
    "colour_drift": 1.0, "voice_r": 0.1,
}  # fmt: skip


def shifted_sound(good: Good, frames: float) -> Video:
    late = round(frames / FPS * RATE)
    return good.frames, np.concatenate([np.zeros(late, np.float32), good.sound])[: len(good.sound)]


def blurred(good: Good, sigma: float) -> Video:
    return np.stack([gaussian_filter(frame, (sigma, sigma, 0)) for frame in good.frames]), good.sound


def swapped(good: Good, share: float) -> Video:
    """Another person, more and more."""
    assert good.other is not None
    mixed = (1 - share) * good.frames + share * good.other
    return mixed.round().astype(np.uint8), good.sound


def frozen_mouth(good: Good, share: float) -> Video:
    """A mouth that stops for so much of the clip, in its middle: recordings begin in silence, where none moves."""
    left, top, right, bottom = (int(v) for v in np.round(mouth_box(good.points[0])))
    frames = good.frames.copy()
    count = round(share * len(frames))
    start = (len(frames) - count) // 2
    frames[start : start + count, top:bottom, left:right] = frames[start, top:bottom, left:right]
    return frames, good.sound


def dropped(good: Good, share: float) -> Video:
    """So many frames repeat the one before them."""
    frames = good.frames.copy()
    lost = np.random.default_rng(0).permutation(np.arange(1, len(frames)))[: round(share * len(frames))]
    for index in np.sort(lost):
        frames[index] = frames[index - 1]
    return frames, good.sound


def drifting_colours(good: Good, levels: float) -> Video:
    """Darker and redder towards the end, by so many levels."""
    ramp = np.linspace(0, 1, len(good.frames))[:, None, None, None] * np.array([-0.3, -1.0, -1.0]) * levels
    return (good.frames + ramp).round().clip(0, 255).astype(np.uint8), good.sound


def tiled(good: Good, levels: float) -> Video:
    """Squares of 16 pixels, each brighter or darker."""
    height, width = good.frames.shape[1:3]
    steps = np.random.default_rng(1).choice([-1, 1], (height // 16 + 1, width // 16 + 1)) * levels
    squares = np.kron(steps, np.ones((16, 16)))[:height, :width, None]
    return (good.frames + squares).round().clip(0, 255).astype(np.uint8), good.sound


def second_jaw(good: Good, alpha: float) -> Video:
    """The chin once more, lower down and half transparent."""
    frames = good.frames.astype(np.float32)
    jaw = good.points[0, :17]
    height = int(good.points[0, 8, 1] - good.points[0, 30, 1])
    top, down = int(good.points[0, 57, 1]), max(round(0.22 * height), 4)
    left, right = int(jaw[4, 0]), int(jaw[12, 0])
    bottom = min(int(jaw[8, 1]) + 4, frames.shape[1] - down)
    below = frames[:, top + down : bottom + down, left:right]
    frames[:, top + down : bottom + down, left:right] = below + alpha * (frames[:, top:bottom, left:right] - below)
    return frames.round().clip(0, 255).astype(np.uint8), good.sound


FAULTS = {
    "sound late by frames": Fault((1, 3, 6, 10), shifted_sound, {"sound_offset": 1}, (*PICTURE, *LIPS, "repeated")),
    "blur, sigma px": Fault(
        (0.6, 1.2, 2.4), blurred, {"sharpness": -1, "mouth_sharpness": -1, "psnr": -1},
        ("sound_offset", "lips_r", "repeated"),
    ),
    "identity swapped, share": Fault((0.35, 0.7, 1.0), swapped, {"identity": 1, "psnr": -1}, ("sound_offset",)),
    "mouth frozen, share of the clip": Fault(
        (0.3, 0.6, 1.0), frozen_mouth, {"lips_r": -1, "lips_amplitude": -1, "lip_distance": 1},
        ("sound_offset", "identity", "sharpness"),
    ),
    "frames dropped, share": Fault(
        (0.1, 0.25, 0.5), dropped, {"repeated": 1}, ("sound_offset", "sharpness", "identity", "lip_colour")
    ),
    "colours drift, levels": Fault(
        (5, 12, 25), drifting_colours, {"colour_drift": 1, "lip_colour": 1},
        ("sound_offset", "lips_r", "repeated", "mouth_sharpness"),
    ),
    "tiles, levels": Fault((3, 6, 12), tiled, {"tiles": 1}, ("sound_offset", "lips_r", "repeated", "colour_drift")),
    "second jaw, alpha": Fault(
        (0.25, 0.5, 0.9), second_jaw, {"chin": 1}, ("sound_offset", "sharpness", "colour_drift")
    ),
}  # fmt: skip


def rendered(number: int) -> Good:
    from skyreels_audio.synthetic.render import Renderer

    said, renderer = voice(number, PROTOCOL.frames / FPS), Renderer(256)
    motion = speaking_motion(said, number)
    shown, _ = true_video(renderer, drawn("test", number, "realistic")[0], motion)
    other, _ = true_video(renderer, drawn("test", number + 50, "realistic")[0], motion)
    return Good(f"drawn {number}", shown.frames, said.waveform, shown.landmarks_T682, other.frames)


def filmed(path: Path) -> Good:
    from skyreels_audio.evaluation.motion import track_landmarks

    frames = np.stack(list(media.read_video(path, FPS)))[: PROTOCOL.frames]
    return Good(path.stem, frames, media.read_audio(path), track_landmarks(frames), None)


def write_video(path: Path, video: Video) -> None:
    with tempfile.NamedTemporaryFile(suffix=".wav") as sound:
        write_sound(Path(sound.name), video[1])
        with media.VideoWriter(path, video[0].shape[2], video[0].shape[1], FPS, sound.name) as writer:
            for frame in video[0]:
                writer.write(frame)


def measured(good: Good, videos: dict[str, Video], work: Path) -> dict[str, dict[str, float]]:
    """Figures of each of the videos against the good one; kept in ``work``."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        truth, voice_path = Path(folder, "truth.mp4"), Path(folder, "voice.wav")
        seen = None
        for name, video in videos.items():
            kept = work / f"{good.name}-{name}.json".replace("/", "_").replace(" ", "_")
            if not kept.exists():
                if seen is None:
                    write_video(truth, (good.frames, good.sound))
                    write_sound(voice_path, good.sound)
                    seen = Seen.of(truth, PROTOCOL)
                path = Path(folder, "spoilt.mp4")
                write_video(path, video)
                result, _ = measure(path, Case("x", truth, voice_path), seen, PROTOCOL, Networks())
                kept.write_text(json.dumps(result.values))
                print(f"  {good.name}, {name}", flush=True)
            found[name] = json.loads(kept.read_text())
    return found


def rows_of(fault_name: str, fault: Fault, clips: list[dict[str, dict[str, float]]]) -> list[Row]:
    """Of each metric that must tell: in which share of clips it moves right at every step; how far others move."""
    rows = []
    names = ["none", *(f"{fault_name} {strength:g}" for strength in fault.strengths)]
    clips = [clip for clip in clips if names[1] in clip]
    for metric, sign in fault.tells.items():
        curves = [[clip[name].get(metric, np.nan) for name in names] for clip in clips]
        right = [bool(np.all(sign * np.diff(curve) > 0)) for curve in curves]
        means = " → ".join(f"{value:.{METRICS[metric].digits}f}" for value in np.mean(curves, 0))
        rows.append(Row(f"{fault_name}: {METRICS[metric].title}", float(np.mean(right)), ("≥", 1.0), note=means))
    for metric in fault.spares:
        worst = max(abs(clip[name].get(metric, 0) - clip["none"].get(metric, 0)) for clip in clips for name in names)
        rows.append(Row(f"{fault_name}: {METRICS[metric].title} stays", worst, ("≤", TOLERANCE[metric]), digits=3,
                        note="largest change"))  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footage", type=Path, help="folder of videos of talking people")
    parser.add_argument("--clips", type=int, default=2, help="of each kind")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "metric-sanity", help="where clips are remembered")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    makers: list[Callable[[], Good]] = [lambda number=number: rendered(number) for number in range(options.clips)]
    if options.footage is not None:
        paths = sorted(options.footage.glob("*.mp4"))
        chosen = paths[:: max(1, len(paths) // options.clips)][: options.clips]
        makers += [lambda path=path: filmed(path) for path in chosen]
    clips = []
    for make in makers:
        good = make()
        videos = {"none": (good.frames, good.sound)}
        for name, fault in FAULTS.items():
            if fault.plant is swapped and good.other is None:
                continue
            videos |= {f"{name} {strength:g}": fault.plant(good, strength) for strength in fault.strengths}
        clips.append(measured(good, videos, options.work))
    rows = [row for name, fault in FAULTS.items() for row in rows_of(name, fault, clips)]
    print(plain(rows))
    about = {"date": time.strftime("%Y-%m-%d"), "clips": len(clips), "frames": PROTOCOL.frames}
    write(options.output, "metric_sanity", "Whether the metrics can fail", rows, about)
    print(f"{sum(row.passed is True for row in rows)} of {len(rows)} as they should be")


if __name__ == "__main__":
    main()
