"""The pipeline as a live speaker: short windows that meet as those of long videos do (Algorithm 1, in pixels).

A window of five latents holds, in frames: the pinned reference and one latent of what was said before; two latents that
are new (``live.HOP``); one latent of look-ahead (``live.AHEAD``), which fades into the window that follows.
"""

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from skyreels_audio import SkyReelsAudioPipeline
from skyreels_audio.app.live import AHEAD, FPS, HOP, SAMPLES, mix
from skyreels_audio.generation.encoders import encode_conditions, encode_prompts
from skyreels_audio.models.rope import FRAMES_PER_LATENT

PAST = 1 + FRAMES_PER_LATENT  # frames
WINDOW = PAST + HOP + AHEAD
LATENTS = (WINDOW - 1) // FRAMES_PER_LATENT + 1


class PipelineSpeaker:
    """See ``live.Speaker``. The picture and the empty prompt are encoded once."""

    def __init__(self, model: str, device: str, picture: np.ndarray) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pipe: Any = SkyReelsAudioPipeline.from_pretrained(model).to(device)
        self.settings = self.pipe.settings(fps=FPS, colour_strength=0.0)
        self.past_n = np.zeros(PAST * SAMPLES, np.float32)
        self.fading: list[np.ndarray] = []
        silence = torch.zeros(WINDOW * SAMPLES)
        nothing = "", "", None, None
        with torch.no_grad():
            self.text_2SD = encode_prompts(self.pipe, *nothing, self.settings)
            given = None, None, self.settings, None, quiet
            self.prepared = self.pipe.prepare(picture, silence, nothing, *given)
        self.rest = self.window(silence.numpy())[-1]

    def frames_for(self, voice_n: np.ndarray, ahead_n: np.ndarray) -> list[np.ndarray]:
        frames = self.window(np.concatenate([self.past_n, voice_n, ahead_n]))
        new = frames[:HOP]
        for index, old in enumerate(self.fading):
            new[index] = mix(old, new[index], (index + 1) / (len(self.fading) + 1))
        self.fading = frames[HOP:]
        self.past_n = np.concatenate([self.past_n, voice_n])[-PAST * SAMPLES :]
        return new

    def forget(self) -> None:
        self.past_n[:] = 0
        self.fading = []

    @torch.no_grad()
    def window(self, waveform_n: np.ndarray) -> list[np.ndarray]:
        """The frames after ``PAST`` for ``WINDOW`` frames of voice, always from the same noise."""
        voice = torch.from_numpy(waveform_n.astype(np.float32))
        heard = encode_conditions(self.pipe, None, None, voice, self.text_2SD, LATENTS, self.settings)
        conditions = replace(
            self.prepared.conditions,
            audio_BAD=heard.audio_BAD,
            audio_positions_A=heard.audio_positions_A,
            voice_activity_T=heard.voice_activity_T,
        )
        prepared = replace(self.prepared, conditions=conditions)
        noise = torch.Generator("cpu").manual_seed(0)
        latents = self.pipe.denoise(prepared, self.settings, None, noise, None, quiet, None)
        frames = islice(self.pipe.decode(latents, prepared, quiet), PAST, None)
        return list(self.pipe.composite(frames, prepared, self.settings))


def quiet(phase: str, done: int, total: int) -> None:
    """Nobody is told how far a window is."""
