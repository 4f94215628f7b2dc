"""What a caller may ask of the pipeline, checked at the door."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from skyreels_audio.generation.guidance import Scale
from skyreels_audio.generation.windows import Fusion


@dataclass(frozen=True)
class Settings:
    """How to generate. A checkpoint brings its own as ``generation_defaults``; a call may replace any of them.

    Attributes:
        num_inference_steps: the paper uses 50.
        audio_guidance_scale, text_guidance_scale: number or schedule (``guidance.Scale``); 1 is off. Paper: audio 4.5.
        height, width: pixels.
        fps: frames per second of the output; the audio clock follows it.
        window, overlap: in latent frames (of four pixel frames). Longer videos are made in overlapping windows.
        fusion: how windows meet (``windows.Windows``).
        guidance_order, unconditional_drops: see ``guidance.Guidance``.
        ease_silence: audio guidance fades where the voice is silent.
        hybrid_steps: video editing sees the video for this many steps and then only its first frame (eq. 4); None: all.
        colour_strength: 0 … 1, how far colours are brought back to the reference's (``colour.unify_colours``).
        text_tokens: length of the encoded prompt; Wan's is 512.
        animate: what of a portrait may move: "everything", or a region of ``faces.framing``, the "mouth" or the "face".
            All else is then given in every frame, as in the editing of a video, and no latent beside the region is
            computed. Words alone first make a portrait, which then speaks.
        portrait_steps, portrait_guidance_scale: denoising steps and text guidance of that portrait.
        teacache_coefficients, magcache_ratios: what step caches know of this checkpoint (``cache``); None: nothing.
    """

    num_inference_steps: int = 50
    audio_guidance_scale: float | str = 4.5
    text_guidance_scale: float | str = 5.0
    height: int = 544
    width: int = 960
    fps: float = 25.0
    window: int = 21
    overlap: int = 5
    fusion: Fusion = "bidirectional"
    guidance_order: str = "audio_last"
    unconditional_drops: tuple[str, ...] = ("text", "audio", "reference")
    ease_silence: bool = True
    hybrid_steps: int | None = None
    colour_strength: float = 0.0
    text_tokens: int = 512
    animate: Literal["everything", "face", "mouth"] = "everything"
    portrait_steps: int = 24
    portrait_guidance_scale: float | str = 3.0
    teacache_coefficients: tuple[float, ...] | None = None
    magcache_ratios: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        Scale.parse(self.audio_guidance_scale)
        Scale.parse(self.text_guidance_scale)
        Scale.parse(self.portrait_guidance_scale)
        object.__setattr__(self, "unconditional_drops", tuple(self.unconditional_drops))
        rules = [
            (self.num_inference_steps >= 1, "num_inference_steps must be at least 1"),
            (self.fps > 0, "fps must be positive"),
            (2 <= self.overlap < self.window, "overlap must be at least 2 latents and less than window"),
            (
                self.fusion in ("bidirectional", "unidirectional", "none"),
                "fusion: bidirectional, unidirectional or none",
            ),
            (self.guidance_order in ("audio_last", "text_last"), "guidance_order must be audio_last or text_last"),
            (
                {"text", "audio", "reference"} >= set(self.unconditional_drops),
                "unconditional_drops: text, audio, reference",
            ),
            (self.hybrid_steps is None or self.hybrid_steps >= 0, "hybrid_steps must not be negative"),
            (self.animate in ("everything", "face", "mouth"), "animate: everything, face or mouth"),
            (self.portrait_steps >= 1, "portrait_steps must be at least 1"),
            (0 <= self.colour_strength <= 1, "colour_strength must be between 0 and 1"),
        ]
        for holds, sentence in rules:
            if not holds:
                raise ValueError(f"{sentence} (given: {self}).")


def check_audio(audio: np.ndarray | Tensor | None) -> Tensor:
    if audio is None:
        raise ValueError("audio is missing: give the voice as a mono float array at 16 kHz.")
    waveform = torch.as_tensor(audio)
    if waveform.ndim != 1 or not waveform.is_floating_point():
        raise ValueError(f"audio must be a mono float array, not {waveform.dtype} of shape {tuple(waveform.shape)}.")
    if len(waveform) == 0 or not torch.isfinite(waveform).all():
        raise ValueError("audio is empty or holds values that are not finite.")
    return waveform.float()


def check_pictures(
    image: np.ndarray | Image.Image | None,
    video: np.ndarray | None,
    known: np.ndarray | None,
    num_frames: int,
    settings: Settings,
) -> np.ndarray | None:
    """The given frames, uint8 [F, height, width, 3]: the fitted image alone, the video, or None."""
    if video is None:
        if known is not None:
            raise ValueError("known says which pixels of a video stay, but no video was given.")
        return None if image is None else fit_picture(image, settings.height, settings.width)[None]
    if image is not None or known is None:
        raise ValueError("To edit a video give video and known (which pixels stay), and no image.")
    size = (settings.height, settings.width)
    if video.dtype != np.uint8 or video.shape[1:] != (*size, 3) or known.shape != video.shape[:3]:
        raise ValueError(
            f"video must be uint8 [F, {size[0]}, {size[1]}, 3] and known [F, {size[0]}, {size[1]}], "
            f"not {video.dtype} {video.shape} and {known.shape}."
        )
    if len(video) < num_frames:
        raise ValueError(f"The audio lasts {num_frames} frames but the video has {len(video)}; extend or trim one.")
    return video[:num_frames]


def fit_picture(image: np.ndarray | Image.Image, height: int, width: int) -> np.ndarray:
    """Crop the centre to the aspect of the video and resize: uint8 [height, width, 3]."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image must be uint8 [H, W, 3], not {image.dtype} of shape {image.shape}.")
        image = Image.fromarray(image)
    fitted = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(fitted)
