"""A live speaker whose frames are as bright in their middle as the voice is loud."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from skyreels_audio.app.live import HOP, SAMPLES

SIDE = 128
DARK = 20


class StubSpeaker:
    def __init__(self, model: str = "", device: str = "", picture: np.ndarray | None = None) -> None:
        self.size: tuple[int, int] = SIDE, SIDE
        self.bright = DARK
        self.picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        if picture is not None:
            self.picture[:] = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE)))

    def speak(self, voice_n: np.ndarray, ahead_n: np.ndarray) -> Sequence[int]:
        assert len(voice_n) == HOP * SAMPLES
        return [DARK + round(200 * min(1.0, float(np.abs(part).max()))) for part in np.split(voice_n, HOP)]

    def idle(self, count: int, waiting: bool) -> Sequence[int]:
        return [self.bright if waiting else DARK] * count

    def show(self, poses: Sequence[int], sound_n: np.ndarray) -> Sequence[np.ndarray]:
        assert len(sound_n) == len(poses) * SAMPLES
        self.bright = poses[-1]
        frames = [self.picture.copy() for _ in poses]
        for frame, bright in zip(frames, poses, strict=True):
            frame[48:80, 48:80] = bright
        return frames
