"""Public audio models → model folders of ours: FantasyTalking, MultiTalk, InfiniteTalk and SkyReels-V3-A2V."""

from pathlib import Path
from typing import Any

import torch

from skyreels_audio.media import InputError
from skyreels_audio.models.convert.audio_encoders import wav2vec_components
from skyreels_audio.models.convert.backbone import SIZES, Progress, transformer_folder, write_model
from skyreels_audio.models.convert.hub import local_folder
from skyreels_audio.models.convert.keys import FANTASYTALKING, MULTITALK, WAN
from skyreels_audio.models.convert.tensors import Tensors, read_state_dict, why
from skyreels_audio.models.convert.transformer import read_backbone, translate, with_audio

# Guidance: FantasyTalking adds audio to what text gives, the MultiTalk family text to what audio gives; all keep the
# picture in the null. SkyReels-V3-A2V is distilled to 4 steps without guidance. Each brings its own schedule, which is
# Euler's, whatever the scheduler of the backbone.
FANTASYTALKING_DEFAULTS = {
    "shift": 5.0,
    "num_inference_steps": 30,
    "fps": 23.0,
    "audio_guidance_scale": 5.0,
    "text_guidance_scale": 5.0,
    "guidance_order": "audio_last",
    "timestep_spacing": "trailing",
}
MULTITALK_DEFAULTS = {
    "shift": 7.0,
    "num_inference_steps": 40,
    "fps": 25.0,
    "audio_guidance_scale": 4.0,
    "text_guidance_scale": 5.0,
    "guidance_order": "text_last",
    "timestep_spacing": "linspace",
    "audio_feature_rounding": "floor",
}
SKYREELS_V3_DEFAULTS = MULTITALK_DEFAULTS | {
    "shift": 11.0,
    "num_inference_steps": 4,
    "audio_guidance_scale": 1.0,
    "text_guidance_scale": 1.0,
    "audio_feature_rounding": "ceil",
}


def convert_audio_model(
    source: str | Path,
    backbone: str | Path | None,
    wav2vec: str | Path,
    out: str | Path,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make a model folder of a public audio model, which speaks without training.

    Args:
        source: its weights: `fantasytalking_model.ckpt` or `.safetensors`; `multitalk.safetensors` or
            `infinitetalk.safetensors`; or the folder or repository of SkyReels-V3-A2V.
        backbone: folder or repository of the Wan 2.1 I2V 14B it was trained on; None for SkyReels-V3, a whole model.
        wav2vec: folder or repository of its audio encoder: wav2vec2-base-960h for FantasyTalking, else
            chinese-wav2vec2-base.
        out, dtype, progress: see ``convert_backbone``.

    Raises:
        InputError: in one sentence, what is wrong; weights that are missing or left over are named.
    """
    path = Path(source) if Path(source).is_file() else None
    if path is None and Path(source).suffix in (".safetensors", ".ckpt", ".pth"):
        raise InputError(f"{source} does not exist.")
    if path is None:
        folder = local_folder(source)
        shards, config = read_backbone(transformer_folder(folder))
        extra, defaults = {}, SKYREELS_V3_DEFAULTS
        tensors = {name: tensor for shard in shards for name, tensor in shard.items()}
    else:
        if backbone is None:
            raise InputError(
                f"{path} holds the audio branch alone: name its backbone, e.g. Wan-AI/Wan2.1-I2V-14B-720P."
            )
        folder = local_folder(backbone)
        shards, config = read_backbone(transformer_folder(folder))
        extra = tensors = read_audio_weights(path)
        defaults = MULTITALK_DEFAULTS if "audio_projector.proj1.weight" in tensors else FANTASYTALKING_DEFAULTS
    audio = audio_config(tensors, str(source))
    encoder = wav2vec_components(wav2vec, all_layers=audio["frame_window"] == "multitalk")
    if encoder.width != audio["audio_dim"]:
        raise InputError(f"{source} reads features of width {audio['audio_dim']}, but {wav2vec} has {encoder.width}.")
    if config.get("image_dim") is None:
        raise InputError(f"{folder} makes videos of text; this audio model was trained on an image-to-video backbone.")
    shards, config = with_audio(shards, config, audio, extra)
    height, width = SIZES["480P" if "480P" in str(backbone).upper() else "720P"]
    defaults = {"height": height, "width": width, "unconditional_drops": ["text", "audio"], **defaults}
    made_of = {"backbone": str(folder.resolve()), "audio_model": str((path or folder).resolve())}
    return write_model(folder, Path(out), shards, config, encoder, defaults, made_of, dtype, progress)


def read_audio_weights(path: Path) -> Tensors:
    """The weights of an audio branch under our names; those of the backbone that were trained along, too."""
    tensors = read_state_dict(path)
    if any(name.startswith("audio_processor.") for name in tensors):
        return translate(tensors, FANTASYTALKING, ("audio_processor.blocks.", "blocks."))
    return translate(tensors, WAN | MULTITALK)


def audio_config(tensors: Tensors, what: str) -> dict[str, Any]:
    """The audio arguments of our transformer's configuration, from the shapes of the weights."""
    from skyreels_audio.models.windowed_audio_attention import LATER_FRAMES, MultiTalkProjector

    try:
        if "audio_projector.proj.weight" in tensors:
            width, audio_dim = tensors["audio_projector.proj.weight"].shape
            window = "fantasytalking"
        else:
            audio_dim = tensors["audio_projector.proj1_vf.weight"].shape[1] // LATER_FRAMES
            width = tensors["audio_projector.proj3.weight"].shape[0] // MultiTalkProjector.tokens
            window = "multitalk"
    except (KeyError, ValueError) as error:
        raise InputError(f"{what} holds no audio branch of FantasyTalking or MultiTalk: {why(error)}.") from error
    return {"frame_window": window, "audio_dim": audio_dim, "audio_width": width, "audio_rope": False}
