"""Small videos, and stages that misbehave, for the tests of curation. Imported by worker processes too."""

import os
import time
import wave
from multiprocessing import parent_process
from pathlib import Path
from typing import ClassVar

import numpy as np

from skyreels_audio.curation.footage import source_path
from skyreels_audio.curation.recipe import Duplicates, Recipe, Stages
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.sources import Probe
from skyreels_audio.media import VideoWriter

FPS, RATE = 25, 16_000


def scene(seed: int, frames: int = 50, size: int = 64) -> np.ndarray:
    """Frames uint8 [F, H, W, 3] of a smooth picture that drifts."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(size, size + frames, 3)), (5, 5, 0))
    field = (rng.uniform(70, 180, 3) + field / field.std() * 35).clip(0, 255).astype(np.uint8)
    return np.stack([field[:, k : k + size] for k in range(frames)])


def sound(seed: int, seconds: float) -> np.ndarray:
    """Noise in bursts: float32 [n] at 16 kHz."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    envelope = np.repeat(rng.random(-(-n // 1600)), 1600)[:n]
    return (0.3 * envelope * rng.normal(size=n)).clip(-1, 1).astype(np.float32)


def write(path: Path, frames: np.ndarray, waveform: np.ndarray | None = None, fps: float = FPS) -> Path:
    track = None
    if waveform is not None:
        track = path.with_suffix(".wav")
        with wave.open(str(track), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((waveform * 32767).astype(np.int16).tobytes())
    with VideoWriter(
        path, frames.shape[2], frames.shape[1], fps, audio=track, duration=len(frames) / fps, audio_codec="flac"
    ) as video:
        for frame in frames:
            video.write(frame)
    if track is not None:
        track.unlink()
    return path


class PoisonProbe(Probe):
    """Ends its process on a source whose name has "poison" in it, as a decoder's segmentation fault does.

    delay: seconds that every source takes.
    held: a source with this in its name lasts as long as the run that scores it.
    """

    name: ClassVar[str] = "probe"
    delay: float = 0.0
    held: str = ""

    def __call__(self, clip: Clip) -> Clip:
        time.sleep(self.delay)
        name = Path(source_path(clip.source)).name
        run = parent_process()
        while self.held and self.held in name and run is not None and run.is_alive():
            time.sleep(0.05)
        if "poison" in name:
            os.kill(os.getpid(), 11)
        return super().__call__(clip)


def quick_recipe(delay: float = 0.0, held: str = "", **given) -> Recipe:
    """Stages without models: probe, split, fingerprint."""
    off = dict.fromkeys(("content", "quality", "portrait", "audio", "synchrony", "caption"))
    stages = Stages(probe=PoisonProbe(delay=delay, held=held), **off)
    return Recipe(**{"stages": stages, "duplicates": Duplicates(), **given})
