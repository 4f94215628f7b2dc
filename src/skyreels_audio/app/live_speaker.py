"""The pipeline as a live speaker: codes of motion in windows that go on from what was shown, moving one picture.

A window holds, in latents of four frames: the pinned reference; what was shown before, known to every denoising step;
what is new (``live.HOP``); and the look-ahead (``live.AHEAD``), which is made again by the next window.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperConfig

from skyreels_audio import SkyReelsAudioPipeline
from skyreels_audio.acceleration.accelerate import Acceleration, accelerated
from skyreels_audio.app.live import AHEAD, FPS, HOP, SAMPLES
from skyreels_audio.generation.compositing import Compositor
from skyreels_audio.generation.encoders import encode_conditions, encode_prompts
from skyreels_audio.generation.inputs import PORTRAIT_COMPONENTS, Prepared, Source, picture_source
from skyreels_audio.generation.latents import normalise
from skyreels_audio.media import SAMPLE_RATE, InputError
from skyreels_audio.models.audio_features import AudioEncoder
from skyreels_audio.models.motion_autoencoder import REST, pack
from skyreels_audio.models.rope import FRAMES_PER_LATENT, TOKENS_PER_SECOND

WINDOW = 13  # latents
FRAMES = FRAMES_PER_LATENT * (WINDOW - 1) + 1
PAST = FRAMES - HOP - AHEAD - 1  # frames: what is new begins with the last frame of a latent, as a video does
STEPS = 4
SIDE = 384  # pixels: a larger picture costs more to move and to encode than it shows on a page
IDLE_SECONDS = 12
CLOSING = 0.4  # of the way from what is shown to the idle face, in every frame


class PipelineSpeaker:
    """See ``live.Speaker``. Raises InputError where the checkpoint makes pixels, or the picture shows no face."""

    def __init__(self, model: str, device: str, picture: np.ndarray) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        unneeded = dict.fromkeys(PORTRAIT_COMPONENTS)
        self.pipe: Any = SkyReelsAudioPipeline.from_pretrained(model, **unneeded).to(device)
        if not self.pipe.moves_pixels:
            raise InputError("A live face needs a checkpoint whose latents are motion, as weights/tiny is.")
        height, width = self.size = live_size(picture)
        how = {"height": height, "width": width, "fps": FPS}
        self.settings = self.pipe.settings(window=WINDOW, num_inference_steps=STEPS, **how)
        try:
            source = picture_source(self.pipe, picture, "", self.settings, None, quiet)
        except ValueError as error:
            raise InputError(str(error)) from None
        assert source.aligned is not None
        self.compositor = Compositor(source.aligned, self.pipe.vae)
        self.text_2SD = encode_prompts(self.pipe, "", "", None, None, self.settings)
        silence_n = np.zeros(IDLE_SECONDS * SAMPLE_RATE, np.float32)
        self.generator = torch.Generator("cpu").manual_seed(0)
        # Made once, so in as many steps as any video: in few of them eyes shut by half.
        self.idle_FN = self.pipe.generate_motion(silence_n, generator=self.generator, **how)
        self.pipe.audio_encoder = shortened(self.pipe.audio_encoder, FRAMES * TOKENS_PER_SECOND // FPS)
        self.noise = torch.randn(1, self.pipe.vae.config.z_dim, WINDOW, 1, 1, generator=self.generator)
        self.past_FN = torch.tensor(REST).expand(PAST, -1)
        self.heard_n = np.zeros(PAST * SAMPLES, np.float32)
        self.idled = 0

    def speak(self, voice_n: np.ndarray, ahead_n: np.ndarray) -> Sequence[Tensor]:
        return list(self.window(np.concatenate([self.heard_n, voice_n, ahead_n]))[PAST : PAST + HOP])

    def idle(self, count: int, waiting: bool) -> Sequence[Tensor]:
        code_N, codes = self.past_FN[-1], []
        for _ in range(count):
            if not waiting:
                code_N = torch.lerp(code_N, self._silent(), CLOSING)
                self.idled += 1
            codes.append(code_N)
        return codes

    def show(self, poses: Sequence[Tensor], sound_n: np.ndarray) -> Sequence[np.ndarray]:
        self.past_FN = torch.cat([self.past_FN, torch.stack(list(poses))])[-PAST:]
        self.heard_n = np.concatenate([self.heard_n, sound_n])[-PAST * SAMPLES :]
        return list(self.compositor.frames(poses))

    def _silent(self) -> Tensor:
        """The next code of a face that nobody lets speak, there and back again."""
        last = len(self.idle_FN) - 1
        return self.idle_FN[last - abs(last - self.idled % (2 * last))]

    @torch.no_grad()
    def window(self, waveform_n: np.ndarray) -> Tensor:
        """Codes [FRAMES, N] of ``FRAMES`` frames of voice, whose first ``PAST`` are those that were shown."""
        hop = HOP // FRAMES_PER_LATENT
        fresh = torch.randn(self.noise[:, :, :hop].shape, generator=self.generator)
        self.noise = torch.cat([self.noise[:, :, hop:], fresh], 2)
        unknown_1N = self.past_FN[-1:]  # of the last latent's frame that is new, which ``known_BCTHW`` leaves out
        past = normalise(pack(torch.cat([self.past_FN, unknown_1N])[None]), self.pipe.vae)
        known_BCTHW = torch.ones_like(past, dtype=torch.bool)
        known_BCTHW[:, :, 0] = known_BCTHW[:, -unknown_1N.shape[1] :, -1] = False
        nobody = Source(np.zeros((1, *self.pipe.vae.config.size, 3), np.uint8))
        voice = torch.from_numpy(waveform_n)
        given = self.text_2SD, WINDOW, self.settings
        conditions = encode_conditions(self.pipe, nobody.frames_FHWC, None, voice, *given)

        def keep_known(pipe: Any, step: int, t: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
            """What was shown, with as much noise as the other latents have after this step."""
            sigma = pipe.scheduler.sigmas[step + 1]
            shown = state["latents"][:, :, : past.shape[2]]
            shown[known_BCTHW] = torch.lerp(past, self.noise[:, :, : past.shape[2]], sigma)[known_BCTHW].to(shown)
            return state

        with accelerated(self.pipe, Acceleration(), self.settings):
            prepared = Prepared(conditions, nobody, FRAMES)
            noise = self.noise.clone()
            latents_BCTHW = self.pipe.denoise(prepared, self.settings, noise, None, keep_known, quiet, None)
        return self.pipe.codes(latents_BCTHW, FRAMES, self.settings)


def shortened(encoder: Any, tokens: int) -> AudioEncoder:
    """A copy of Whisper's encoder that reads so many tokens at a time instead of 30 s, which are mostly padding."""
    short = AudioEncoder(WhisperConfig(**encoder.config.to_dict() | {"max_source_positions": tokens}))
    weights = encoder.state_dict()
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:tokens]
    short.load_state_dict(weights)
    return short.to(encoder.device, encoder.dtype).eval()


def live_size(picture: np.ndarray) -> tuple[int, int]:
    """Height and width, even, of the picture within ``SIDE`` × ``SIDE`` pixels."""
    height, width = picture.shape[:2]
    scale = min(1.0, SIDE / (height * width) ** 0.5) / 2
    return 2 * round(height * scale), 2 * round(width * scale)


def quiet(phase: str, done: int, total: int) -> None:
    """Nobody is told how far a window is."""
