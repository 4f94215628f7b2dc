"""A live speaker whose frames are as bright as the voice is loud."""

import numpy as np

from skyreels_audio.app.live import HOP, SAMPLES

SIDE = 128


class StubSpeaker:
    def __init__(self, model: str = "", device: str = "", picture: np.ndarray | None = None) -> None:
        self.rest = np.full((SIDE, SIDE, 3), 20, np.uint8)
        self.forgotten = 0

    def frames_for(self, voice_n: np.ndarray, ahead_n: np.ndarray) -> list[np.ndarray]:
        assert len(voice_n) == HOP * SAMPLES
        return [
            np.full_like(self.rest, 20 + round(200 * min(1.0, float(np.abs(part).max()))))
            for part in np.split(voice_n, HOP)
        ]

    def forget(self) -> None:
        self.forgotten += 1
