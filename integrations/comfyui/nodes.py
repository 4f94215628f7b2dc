"""Three nodes: load a checkpoint, let a portrait talk, let the speaker of a video say something else.

ComfyUI: IMAGE is float [F, H, W, 3] in [0, 1]; AUDIO is {"waveform": float [1, channels, n], "sample_rate": Hz}.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyreels_audio.app.render import PRESETS, Renderer, Request
from skyreels_audio.bundled import bundled
from skyreels_audio.media import VideoWriter, read_video, write_image

CATEGORY = "SkyReels-Audio"


class LoadModel:
    """A checkpoint folder, once for all that follows."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = ("SKYREELS_MODEL",), ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        default = str(bundled("weights/tiny"))
        return {"required": {"folder": ("STRING", {"default": default}), "device": (["auto", "cpu", "cuda"],)}}

    def load(self, folder: str, device: str) -> tuple[Renderer]:
        return (Renderer(folder, device),)


class TalkingPortrait:
    """A picture and a voice → frames and the voice, to be saved by any video node."""

    CATEGORY, FUNCTION = CATEGORY, "make"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "AUDIO", "FLOAT"), ("frames", "voice", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"model": ("SKYREELS_MODEL",), "picture": ("IMAGE",), "voice": ("AUDIO",)} | options(),
            "optional": {"prompt": ("STRING", {"default": "", "multiline": True})},
        }

    def make(self, model: Renderer, picture: Any, voice: dict[str, Any], **asked: Any) -> tuple[Any, Any, float]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_image(folder / "picture.png", as_pixels(picture)[0])
            return made(model, {"picture": folder / "picture.png"}, voice, folder, asked)


class EditVideo:
    """The speaker of a video, given as frames, speaks with another voice."""

    CATEGORY, FUNCTION = CATEGORY, "make"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "AUDIO", "FLOAT"), ("frames", "voice", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        fps = ("FLOAT", {"default": 25.0, "min": 1.0, "max": 120.0})
        face = ("STRING", {"default": "largest"})
        return {
            "required": {"model": ("SKYREELS_MODEL",), "frames": ("IMAGE",), "voice": ("AUDIO",), "fps": fps}
            | options(),
            "optional": {"face": face, "extend": (["ping-pong", "hold", "trim"],)},
        }

    def make(
        self, model: Renderer, frames: Any, voice: dict[str, Any], fps: float, **asked: Any
    ) -> tuple[Any, Any, float]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            pixels_FHWC = as_pixels(frames)
            height, width = (side // 2 * 2 for side in pixels_FHWC.shape[1:3])
            with VideoWriter(folder / "video.mp4", width, height, fps, crf=1) as writer:
                for frame in pixels_FHWC[:, :height, :width]:
                    writer.write(frame)
            return made(model, {"video": folder / "video.mp4"}, voice, folder, asked)


def options() -> dict[str, Any]:
    """Inputs that both ways share; ranges are those of ``render.Request``."""
    return {
        "preset": (list(PRESETS), {"default": "good"}),
        "motion": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.1}),
        "seed": ("INT", {"default": 0, "min": 0, "max": 2**31 - 1}),
    }


def made(
    model: Renderer, inputs: dict[str, Path], voice: dict[str, Any], folder: Path, asked: dict[str, Any]
) -> tuple[Any, Any, float]:
    """Run the renderer, the same as the page and the API do, and read back what it made."""
    write_sound(folder / "voice.wav", voice)
    (folder / "made").mkdir()
    about = model(Request(**asked), inputs | {"voice": folder / "voice.wav"}, folder / "made", lambda *progress: None)
    frames = [torch.from_numpy(frame) for frame in read_video(folder / "made" / "result.mp4")]
    return torch.stack(frames).float() / 255, voice, float(about["fps"])


def as_pixels(image_FHWC: Any) -> np.ndarray:
    """IMAGE → uint8 [F, H, W, 3]."""
    return (image_FHWC[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def write_sound(path: Path, voice: dict[str, Any]) -> None:
    """AUDIO → a WAV file, one channel."""
    import wave

    waveform_n = voice["waveform"][0].float().mean(0).cpu().numpy()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, int(voice["sample_rate"]), 0, "NONE", ""))
        file.writeframes((waveform_n.clip(-1, 1) * 32767).round().astype("<i2").tobytes())


NODE_CLASS_MAPPINGS = {
    "SkyReelsAudioLoadModel": LoadModel,
    "SkyReelsAudioTalkingPortrait": TalkingPortrait,
    "SkyReelsAudioEditVideo": EditVideo,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SkyReelsAudioLoadModel": "Load SkyReels-Audio",
    "SkyReelsAudioTalkingPortrait": "Talking portrait",
    "SkyReelsAudioEditVideo": "Edit a talking video",
}
