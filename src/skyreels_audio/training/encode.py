"""One training clip through the encoders of a model folder, exactly as `generate` uses them.

Shapes: F pixel frame, T latent frame, H W pixels, h w latent grid, S text token, A audio token, N image token.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skyreels_audio import faces
from skyreels_audio.bundled import bundled
from skyreels_audio.faces.track import smooth_runs
from skyreels_audio.generation.encoders import encode_image, encode_text
from skyreels_audio.generation.latents import build_reference, normalise, spatial_factor
from skyreels_audio.generation.masks import editing_known, lip_weight
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.generation.settings import Settings
from skyreels_audio.media import SAMPLE_RATE, InputError, read_audio
from skyreels_audio.models.audio_features import encode_audio_features
from skyreels_audio.models.motion_autoencoder import REST, MotionAutoencoder, pack
from skyreels_audio.models.rope import (
    FRAMES_PER_LATENT,
    FRAMES_PER_SECOND,
    TOKENS_PER_SECOND,
    latent_positions,
    token_positions,
)
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.training.manifest import LABEL_FPS, ManifestRow
from skyreels_audio.training.motion.read import read_motion

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Window:
    """A stretch of a clip that becomes one sample: T latents from frame ``first`` on, at H × W pixels."""

    first: int
    latents: int
    size: tuple[int, int]

    @property
    def frames(self) -> int:
        return FRAMES_PER_LATENT * (self.latents - 1) + 1


class Encoders:
    """All of a model folder but the transformer, whose configuration says what is to be encoded."""

    def __init__(self, model: Path, device: torch.device, fps: float) -> None:
        self.device, self.fps = device, fps
        self.config: Any = SkyReelsAudioTransformer3DModel.load_config(model / "transformer")
        if self.config.get("audio_dim") is None or self.config.get("frame_window") is not None:
            raise InputError(
                f"{model} has no audio branch of the paper's kind; `skyreels-audio convert --backbone` adds it."
            )
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        autoencoder: Any = MotionAutoencoder.load_config(model / "vae")
        moves_pixels = autoencoder["_class_name"] == MotionAutoencoder.__name__
        parts = {} if moves_pixels else {"transformer": None}  # of motion it tells what is usual
        pipeline: Any = SkyReelsAudioPipeline.from_pretrained(model, dtype=dtype, **parts)
        self.pipeline, self.vae = pipeline, pipeline.vae
        if moves_pixels and fps != FRAMES_PER_SECOND:
            raise InputError(f"{model} has {FRAMES_PER_SECOND:g} codes of motion a second: precompute at that rate.")
        self.text_tokens = Settings(**pipeline.config["generation_defaults"]).text_tokens
        for name in ("text_encoder", "audio_encoder", "vae", "image_encoder"):
            if (component := getattr(pipeline, name)) is not None:
                component.to(device)
        # What `encode_image` asks of a pipeline; the transformer itself is not loaded.
        transformer = SimpleNamespace(config=SimpleNamespace(**self.config), dtype=torch.float32)
        image = {name: getattr(pipeline, name) for name in ("image_encoder", "image_processor")}
        self.reader = SimpleNamespace(transformer=transformer, _execution_device=device, **image)
        self.step = spatial_factor(self.vae) * self.config["patch_size"][1]

    @cached_property
    def usual_motion_FN(self) -> Tensor:
        """Codes of speech as this model of motion speaks the example's voice."""
        self.pipeline.set_progress_bar_config(disable=True)
        voice_n = read_audio(bundled("examples/voice.wav"))
        return self.pipeline.generate_motion(voice_n, generator=torch.Generator().manual_seed(0))

    def motion(self, frames_FHWC: np.ndarray, points_F682: np.ndarray) -> Tensor:
        """Normalised latents [C, T, 1, 1] of what a face does; the first is the picture itself, as every window's."""
        codes_FN = read_motion(frames_FHWC, points_F682, self.usual_motion_FN, self.vae)
        codes_FN[0] = codes_FN.new_tensor(REST)
        return normalise(pack(codes_FN[None]), self.vae)[0]

    def text(self, prompt: str) -> Tensor:
        """Text tokens [S, D] without the zeros that fill them up."""
        tokens_SD = encode_text([prompt], self.pipeline.tokenizer, self.pipeline.text_encoder, self.text_tokens)[0]
        used = int(tokens_SD.abs().sum(1).nonzero().max()) + 1
        return tokens_SD[:used].cpu()

    @property
    def margin(self) -> int:
        """Audio tokens that a window sees before its beginning and after its end: half a latent, as windows of a long
        video do, and the reach of the audio attention."""
        half = FRAMES_PER_LATENT / 2 * TOKENS_PER_SECOND / self.fps
        return math.ceil(half + (self.config.get("audio_window") or 0.0))

    def sound(self, waveform_n: np.ndarray, start: float, end: float) -> Tensor:
        """Audio tokens [A, D] of a span and of `margin` tokens more on both sides; past the sound's ends is silence."""
        hop = SAMPLE_RATE // TOKENS_PER_SECOND
        first = round(start * SAMPLE_RATE) - self.margin * hop
        stop = round(end * SAMPLE_RATE) + (self.margin + 2) * hop
        span_n = cut_sound(waveform_n, first, stop)
        return encode_audio_features(
            span_n, self.pipeline.feature_extractor, self.pipeline.audio_encoder, None, self.fps
        )[0]

    def audio(self, sound_AD: Tensor, start: float, latents: int) -> tuple[Tensor, Tensor]:
        """Audio tokens [A, D] of a window that begins ``start`` seconds into the span that `sound` encoded, and their
        positions [A] on the window's clock. A follows from T alone.
        """
        seconds = (FRAMES_PER_LATENT * (latents - 1) + 1) / self.fps
        count = math.ceil(seconds * TOKENS_PER_SECOND) + 2 * self.margin
        first = math.floor(start * TOKENS_PER_SECOND + 1e-6)
        positions_A = token_positions(len(sound_AD)) - self.margin - start * TOKENS_PER_SECOND
        return sound_AD[first : first + count], positions_A[first : first + count]

    @torch.no_grad()
    def clip(
        self, frames_FHWC: np.ndarray, landmarks_F682: np.ndarray, sound_AD: Tensor, start: float, caption: str
    ) -> Tensors:
        """Everything that training reads of one window; ``start`` is where in `sound` it begins, in seconds.

        ``frames_FHWC`` and landmarks are those of the window, in its size.
        """
        latents, size = (len(frames_FHWC) - 1) // FRAMES_PER_LATENT + 1, frames_FHWC.shape[1:3]
        seen = [points if np.isfinite(points).all() else None for points in landmarks_F682]
        boxes = smooth_runs([None if points is None else faces.lower_face_box(points) for points in seen])
        known_FHW = editing_known(boxes, size)
        lips_FHW = np.stack([np.zeros(size, np.float32) if p is None else faces.lip_mask(p, size) for p in seen])

        def reference(frames: np.ndarray, known: np.ndarray | None) -> tuple[Tensor, Tensor]:
            latents_BCTHW, known_B4THW = build_reference(frames, known, latents, self.vae, device=self.device)
            return latents_BCTHW[0].cpu(), known_B4THW[0].cpu()

        if self.pipeline.moves_pixels:
            clean_CTHW = self.motion(frames_FHWC, landmarks_F682)
        else:
            clean_CTHW, _ = reference(frames_FHWC, None)
        image_CTHW, image_known_4THW = reference(frames_FHWC[:1], None)
        editing_CTHW, editing_known_4THW = reference(frames_FHWC, known_FHW.numpy())
        audio_AD, audio_positions_A = self.audio(sound_AD, start, latents)
        tensors = {
            "clean_CTHW": clean_CTHW.half(),
            "image_CTHW": image_CTHW.half(),
            "image_known_4THW": image_known_4THW.to(torch.uint8),
            "editing_CTHW": editing_CTHW.half(),
            "editing_known_4THW": editing_known_4THW.to(torch.uint8),
            "lips_THW": lip_weight(torch.from_numpy(lips_FHW), spatial_factor(self.vae)).half(),
            "text_SD": self.text(caption).to(torch.bfloat16),
            "audio_AD": audio_AD.half(),
            "audio_positions_A": audio_positions_A,
            "video_positions_T": latent_positions(latents, self.fps),
        }
        image_BND = encode_image(self.reader, frames_FHWC[0])
        if image_BND is not None:
            tensors["image_ND"] = image_BND[0].cpu().to(torch.bfloat16)
        return {name: tensor.contiguous() for name, tensor in tensors.items()}


def cut_sound(waveform_n: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Samples first … stop of a sound; past its ends is silence."""
    inside = waveform_n[max(first, 0) : stop]
    return np.pad(inside, (max(-first, 0), stop - max(first, 0) - len(inside)))


def crop_to(
    frame_HWC: np.ndarray, size: tuple[int, int], centre: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """The largest crop of the wanted shape, as near to ``centre`` (x, y) as the picture allows, in the wanted size.

    Returns:
        the frame, and what brings a point of the picture into it: (point - corner) · scale.
    """
    height, width = frame_HWC.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    extent = np.array([size[1], size[0]]) / scale
    middle = np.array([width, height]) / 2 if centre is None else np.array(centre)
    corner = np.clip(middle - extent / 2, 0, np.array([width, height]) - extent)
    box = (*corner.tolist(), *(corner + extent).tolist())
    resized = Image.fromarray(frame_HWC).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
    return np.asarray(resized), corner, scale


def labels_at(row: ManifestRow, seconds_F: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Boxes [F, 4] and landmarks [F, 68, 2] of a row at other times than the label frames'; None without landmarks."""
    if row.landmarks_F682 is None:
        return None
    points = row.landmarks_F682
    boxes = row.face_boxes_F4
    if boxes is None:
        boxes = np.stack([np.full(4, np.nan) if np.isnan(p).any() else faces.face_box(p) for p in points])
    place = np.clip(seconds_F * LABEL_FPS, 0, len(points) - 1)
    before, share = np.floor(place + 1e-6).astype(int), place - np.floor(place + 1e-6)
    after = np.minimum(before + 1, len(points) - 1)
    nearest = np.where(share < 1e-3, before, after)  # a frame that is not seen does not spoil the one before it

    def between(x: np.ndarray) -> np.ndarray:
        weight = share.clip(0, 1).reshape(-1, *[1] * (x.ndim - 1))
        return ((1 - weight) * x[before] + weight * x[nearest]).astype(np.float32)

    return between(boxes), between(points)
