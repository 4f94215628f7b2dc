"""What a live face costs, and how like the offline video it is → docs/results/live.json.

    python benchmarks/live.py                     # the example portrait and voice
    python benchmarks/live.py --seconds 3

Seconds are of the processor, on one thread: below 1 per second of voice, one core keeps pace.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from skyreels_audio.app.live import AHEAD, FPS, HOP, SAMPLES, Session
from skyreels_audio.app.live_speaker import PipelineSpeaker
from skyreels_audio.bundled import bundled
from skyreels_audio.faces import detect_faces, lip_aperture
from skyreels_audio.media import SAMPLE_RATE, read_audio, read_image

ROOT = Path(__file__).parents[1]


def apertures(frames: list[np.ndarray]) -> np.ndarray:
    """How open the mouth is in each frame, of the face's own measure."""
    return np.array([lip_aperture(detect_faces(frame)[0].landmarks) for frame in frames])


def live_frames(speaker: PipelineSpeaker, voice_n: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """All frames of a voice that comes in as it is needed, and what each hop cost."""
    speaker.forget()
    hop, ahead = HOP * SAMPLES, AHEAD * SAMPLES
    padded_n = np.pad(voice_n, (0, hop + ahead))
    frames, costs = [], []
    for start in range(0, len(voice_n), hop):
        begun = time.process_time()
        frames += speaker.frames_for(padded_n[start : start + hop], padded_n[start + hop : start + hop + ahead])
        costs.append(time.process_time() - begun)
    return frames, costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of the example voice")
    parser.add_argument("--model", default=str(bundled("weights/tiny")))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "live.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    picture = read_image(bundled("examples/portrait.png"))
    voice_n = read_audio(bundled("examples/voice.wav"))[: round(asked.seconds * SAMPLE_RATE)]
    begun = time.process_time()
    speaker = PipelineSpeaker(asked.model, "cpu", picture)
    ready = time.process_time() - begun
    frames, costs = live_frames(speaker, voice_n)
    begun = time.process_time()
    session = Session(speaker, lambda data: None)
    for _ in range(100):
        session._show([speaker.rest], np.zeros(SAMPLES, np.float32))
    idle = (time.process_time() - begun) / 100
    with torch.no_grad():
        noise = torch.Generator("cpu").manual_seed(0)
        offline = list(speaker.pipe(picture, voice_n, settings=speaker.settings, generator=noise).frames)
    count = min(len(frames), len(offline))
    live_F, offline_F = apertures(frames[:count]), apertures(offline[:count])
    results = {
        "look_ahead_seconds": AHEAD / FPS,
        "seconds_of_voice": round(len(voice_n) / SAMPLE_RATE, 2),
        "cpu_seconds_until_ready": round(ready, 2),
        "cpu_seconds_per_second_speaking": round(float(np.mean(costs)) * FPS / HOP + idle * FPS, 2),
        "cpu_seconds_per_hop_worst": round(max(costs), 2),
        "cpu_seconds_per_second_idle": round(idle * FPS, 3),
        "first_frame_after_half_a_second_of_speech": round(2 / FPS + float(np.median(costs)), 2),
        "aperture_r_to_offline": round(float(np.corrcoef(live_F, offline_F)[0, 1]), 3),
        "aperture_amplitude_to_offline": round(float(live_F.std() / offline_F.std()), 3),
    }
    asked.output.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
