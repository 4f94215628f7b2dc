"""What a live face costs, and how like the offline video it is → docs/results/live.md.

    python benchmarks/live.py                     # the example portrait; the example voice, twice
    python benchmarks/live.py --seconds 600       # the voice again and again, for ten minutes

Seconds of work are of the processor, on one thread: below 1 per second of video, one core keeps pace with the clock,
whatever else this machine was doing when they were taken.
"""

import argparse
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyreels_audio import SkyReelsAudioPipeline
from skyreels_audio.app.live import AHEAD, FPS, HOP, SAMPLES, STEP, Session
from skyreels_audio.app.live_speaker import STEPS, WINDOW, PipelineSpeaker
from skyreels_audio.bundled import bundled
from skyreels_audio.faces import detect_faces, lip_aperture
from skyreels_audio.media import SAMPLE_RATE, read_audio, read_image
from skyreels_audio.media.fragments import FragmentWriter

ROOT = Path(__file__).parents[1]
LAGS = 10  # frames by which voice and picture may have drifted apart
BARS = {
    "first_frame_seconds": "≤ 0.7",
    "cpu_seconds_per_second_speaking": "< 1 on one core",
    "interruption_seconds": "≤ 0.2",
    "drift_frames": "≤ 1",
    "aperture_r_to_offline": "≥ 0.95",
}


class Face:
    """The frames of a live speaker without a clock, and what they cost the processor."""

    def __init__(self, speaker: PipelineSpeaker) -> None:
        self.speaker = speaker
        height, width = speaker.size
        self.writer = FragmentWriter(width, height, FPS, SAMPLE_RATE)
        self.planning: list[float] = []
        self.showing: list[float] = []
        self.bytes = 0

    def speak(self, voice_n: np.ndarray) -> list[np.ndarray]:
        """The frames of whole hops of a voice."""
        frames = []
        padded_n = np.pad(voice_n, (0, AHEAD * SAMPLES))
        for start in range(0, len(voice_n), HOP * SAMPLES):
            stop = start + HOP * SAMPLES
            begun = time.process_time()
            poses = self.speaker.speak(padded_n[start:stop], padded_n[stop : stop + AHEAD * SAMPLES])
            self.planning.append(time.process_time() - begun)
            frames += self.show(poses, voice_n[start:stop])
        return frames

    def idle(self, seconds: float) -> list[np.ndarray]:
        frames = []
        for _ in range(round(seconds * FPS / STEP)):
            frames += self.show(self.speaker.idle(STEP, waiting=False), np.zeros(STEP * SAMPLES, np.float32))
        return frames

    def show(self, poses: Sequence[Any], sound_n: np.ndarray) -> list[np.ndarray]:
        frames = []
        for start in range(0, len(poses), STEP):
            part_n = sound_n[start * SAMPLES : (start + STEP) * SAMPLES]
            begun = time.process_time()
            shown = list(self.speaker.show(poses[start : start + STEP], part_n))
            for frame, each_n in zip(shown, np.split(part_n, len(shown)), strict=True):
                self.bytes += len(self.writer.add(frame, each_n))
            self.showing.append(time.process_time() - begun)
            frames += shown
        return frames


def apertures(frames: list[np.ndarray]) -> np.ndarray:
    """How open the mouth is in each frame, of the face's own measure."""
    return np.array([lip_aperture(detect_faces(frame)[0].landmarks) for frame in frames])


def lag(live_F: np.ndarray, offline_F: np.ndarray) -> int:
    """By how many frames the one follows the other, where they are most alike."""
    inner = slice(LAGS, len(offline_F) - LAGS)
    alike = {k: np.corrcoef(np.roll(live_F, -k)[inner], offline_F[inner])[0, 1] for k in range(-LAGS, LAGS + 1)}
    return max(alike, key=lambda k: alike[k])


def interruption(speaker: PipelineSpeaker, voice_n: np.ndarray) -> float:
    """Seconds for which the voice still goes on after an interruption at some moment, on a clock of its own."""
    now = 0.0
    session = Session(speaker, lambda data: None, lambda: now)
    session.receive(voice_n)
    while now < 0.6:
        now += max(0.0, session.due)
        session.step()
    session.interrupt()
    return session.frames / FPS - now


def measure(model: str, seconds: float) -> dict[str, Any]:
    picture = read_image(bundled("examples/portrait.jpg"))
    voice_n = read_audio(bundled("examples/voice.wav"))
    voice_n = voice_n[: len(voice_n) // (HOP * SAMPLES) * HOP * SAMPLES]
    rounds = max(2, round(seconds * SAMPLE_RATE / len(voice_n)))
    begun = time.process_time()
    speaker = PipelineSpeaker(model, "cpu", picture)
    ready = time.process_time() - begun
    face = Face(speaker)
    idle = face.idle(6.0)
    idling = float(np.sum(face.showing)) / 6.0
    still = apertures(idle[FPS::5])
    face.planning, face.showing = [], []
    first = last = face.speak(voice_n)
    for number in range(1, rounds):
        last = face.speak(voice_n)
        print(f"{number + 1} of {rounds}", f"{np.sum(face.planning) + np.sum(face.showing):.0f} s", flush=True)
    spoken = rounds * len(voice_n) / SAMPLE_RATE
    late = interruption(speaker, voice_n)
    pipe = SkyReelsAudioPipeline.from_pretrained(model)
    height, width = speaker.size
    noise = torch.Generator("cpu").manual_seed(0)
    offline = apertures(list(pipe(picture, voice_n, height=height, width=width, generator=noise).frames))
    at_first, at_last = apertures(first), apertures(last)
    return {
        "model": Path(model).name,
        "width": width,
        "height": height,
        "window_latents": WINDOW,
        "denoising_steps": STEPS,
        "look_ahead_seconds": AHEAD / FPS,
        "seconds_of_speech": round(spoken, 1),
        "cpu_seconds_until_ready": round(ready, 2),
        "cpu_seconds_per_second_speaking": round(float(np.sum(face.planning) + np.sum(face.showing)) / spoken, 2),
        "cpu_seconds_per_second_idle": round(idling, 2),
        "cpu_seconds_of_a_hop_median": round(float(np.median(face.planning)), 3),
        "cpu_seconds_of_a_hop_p99": round(float(np.percentile(face.planning, 99)), 3),
        "cpu_seconds_of_a_step_median": round(float(np.median(face.showing)), 3),
        "first_frame_seconds": round(STEP / FPS + float(np.median(face.planning) + np.median(face.showing)), 2),
        "interruption_seconds": round(late, 2),
        "drift_frames": abs(lag(at_last, offline)),
        "aperture_r_to_offline": round(float(np.corrcoef(at_first, offline)[0, 1]), 3),
        "aperture_r_to_offline_at_the_end": round(float(np.corrcoef(at_last, offline)[0, 1]), 3),
        "aperture_amplitude_to_offline": round(float(at_last.std() / offline.std()), 2),
        "aperture_idle_to_speaking": round(float(still.std() / offline.std()), 2),
        "idle_change_per_frame": round(float(np.mean([np.abs(np.int16(a) - b).mean() for a, b in pairwise(idle)])), 2),
        "kilobits_per_second": round(face.bytes * 8 / 1000 / (spoken + 6.0)),
    }


def report(results: dict[str, Any]) -> str:
    rows = [f"| {name.replace('_', ' ')} | {value} | {BARS.get(name, '')} |" for name, value in results.items()]
    about = "`make bench-live`: the example portrait and voice, one thread of a processor that others shared."
    return "\n".join(["# A live face", "", about, "", "| | | bar |", "| --- | ---: | --- |", *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=14.0, help="of speech")
    parser.add_argument("--model", default=str(bundled("weights/tiny")))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "live.md")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(asked.model, asked.seconds)
    asked.output.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    asked.output.write_text(report(results))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
