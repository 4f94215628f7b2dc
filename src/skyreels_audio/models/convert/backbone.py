"""A Wan or SkyReels-V2 checkpoint, in diffusers' layout or its original one → a folder that `generate --model` runs."""

import functools
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from skyreels_audio.media import InputError
from skyreels_audio.models.convert.audio_encoders import AudioComponents, whisper_components
from skyreels_audio.models.convert.encoders import convert_autoencoder, convert_image_encoder, convert_text_encoder
from skyreels_audio.models.convert.hub import local_folder
from skyreels_audio.models.convert.tensors import (
    Tensors,
    check_weights,
    link_tree,
    read_json,
    write_shards,
)
from skyreels_audio.models.convert.transformer import STEM, read_backbone, with_audio

Progress = Callable[[str, int, int], None]
"""Called with the component, how many of its parts are done, and how many there are."""

SIZES = {"480P": (480, 832), "540P": (544, 960), "720P": (720, 1280)}
ORIGINAL = {
    "text_encoder": "models_t5*.pth",
    "image_encoder": "models_clip*.pth",
    "vae": "Wan2.1_VAE.pth",
    "tokenizer": "google/umt5-xxl",
}
CLASSES = {
    "text_encoder": ("transformers", "UMT5EncoderModel"),
    "tokenizer": ("transformers", "T5TokenizerFast"),
    "image_encoder": ("transformers", "CLIPVisionModel"),
    "image_processor": ("transformers", "CLIPImageProcessor"),
    "vae": ("diffusers", "AutoencoderKLWan"),
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
    "transformer": ("skyreels_audio.models.transformer", "SkyReelsAudioTransformer3DModel"),
}


def convert_backbone(
    source: str | Path,
    out: str | Path,
    whisper: str | Path | None = None,
    audio: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Give a video backbone a fresh audio branch, which adds exactly zero until it is trained.

    Tensors stream from shard to shard: memory holds one at a time. A text-to-video input is widened from 16 to 36
    channels with zeros. What a killed run has finished is kept beside ``out`` and reused; ``out`` appears at the end.

    Args:
        source: folder or hub repository (`owner/name` or `owner/name@revision`) of SkyReels-V2 or Wan 2.1.
        out: folder to make; it must not exist.
        whisper: folder or repository of a Whisper checkpoint; None takes the encoder of the bundled checkpoint.
        audio: audio arguments of our transformer's configuration; ``audio_dim`` is the width of Whisper.
        dtype: of the transformer; None keeps the checkpoint's.
        seed: of the fresh weights.

    Raises:
        InputError: in one sentence, what is wrong with the input or the disk.
    """
    folder = local_folder(source)
    encoder = whisper_components(whisper)
    audio = {"audio_dim": encoder.width} | (audio or {})
    shards, config = with_audio(*read_backbone(transformer_folder(folder)), audio, seed=seed)
    made_of = {"backbone": str(folder.resolve()), "seed": str(seed)}
    return write_model(folder, Path(out), shards, config, encoder, defaults_of(source), made_of, dtype, progress)


def load_backbone(source: str | Path, whisper: str | Path | None = None) -> Path:
    """The model folder of a backbone (``convert_backbone``), made once and kept in the hub's cache.

    Raises:
        InputError: see ``convert_backbone``.
    """
    from huggingface_hub.constants import HF_HOME

    folder = local_folder(source).resolve()
    told = zlib.crc32(f"{folder} {whisper}".encode())  # a snapshot's folder is named by its commit
    out = Path(HF_HOME) / "skyreels-audio" / f"{Path(str(source).partition('@')[0]).name}-{told:08x}"
    return out if out.exists() else convert_backbone(source, out, whisper)


def write_model(
    folder: Path,
    out: Path,
    shards: list[Tensors],
    config: dict[str, Any],
    encoder: AudioComponents,
    defaults: dict[str, Any],
    made_of: dict[str, str],
    dtype: torch.dtype | None,
    progress: Progress | None = None,
) -> Path:
    """Write the model folder ``out``: this transformer, this audio encoder, everything else as in ``folder``.

    What a run of before has left is reused if it was made of the same, ``made_of``.
    """
    if out.exists():
        raise InputError(f"{out} exists already; give another name or delete it.")
    report = progress or (lambda component, done, total: None)
    own_schedule = "timestep_spacing" in defaults
    classes = component_classes(folder, image=config["image_dim"] is not None, own_schedule=own_schedule)
    partial = out.with_name(out.name + ".partial")
    made_of = made_of | {"audio_encoder": str(encoder.folder.resolve()), "dtype": str(dtype)}
    record = json.dumps(made_of | {"transformer": config}, indent=2)
    if (partial / "conversion.json").exists() and (partial / "conversion.json").read_text() != record:
        shutil.rmtree(partial)  # of another conversion
    try:
        partial.mkdir(parents=True, exist_ok=True)
        (partial / "conversion.json").write_text(record)
        report("audio_encoder", 0, 1)
        encoder.write(partial)
        report("audio_encoder", 1, 1)
        for name in classes:
            report(name, 0, 1)
            if name == "transformer":
                converted = [{n: tensor.to(dtype) for n, tensor in shard.items()} for shard in shards]
                write_shards(partial / name, STEM, converted, functools.partial(report, name))
                (partial / name / "config.json").write_text(json.dumps(config, indent=2))
            else:
                linked = (folder / name).is_dir() and not (name == "scheduler" and own_schedule)
                if linked:
                    link_component(name, folder, partial / name)
                else:
                    convert_component(name, folder, partial / name, defaults["shift"])
            report(name, 1, 1)
        classes |= encoder.classes
        absent = {name: [None, None] for name in ("image_encoder", "image_processor") if name not in classes}
        settings = {name: value for name, value in defaults.items() if name != "shift"}
        index = {"_class_name": "SkyReelsAudioPipeline", "generation_defaults": settings, **classes, **absent}
        (partial / "model_index.json").write_text(json.dumps(index, indent=2))
        partial.rename(out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{out} cannot be written ({reason}); run the same command again to go on.") from error
    return out


def transformer_folder(folder: Path) -> Path:
    if (folder / "model_index.json").exists():
        return folder / "transformer"
    if folder.is_dir() and list(folder.glob("*.safetensors")):
        return folder
    raise InputError(
        f"{folder} is not a model folder: it holds neither model_index.json (diffusers' layout) nor *.safetensors "
        "weights beside models_t5*.pth and Wan2.1_VAE.pth (the original layout)."
    )


def component_classes(folder: Path, image: bool, own_schedule: bool) -> dict[str, tuple[str, str]]:
    """The components to make and their classes; those of the source where it says.

    Args:
        folder: the source.
        image: whether the transformer reads CLIP tokens.
        own_schedule: whether the model has another scheduler than the source.
    """
    classes = dict(CLASSES)
    if (folder / "model_index.json").exists():
        given = read_json(folder / "model_index.json")
        ours = {"transformer", "scheduler"} if own_schedule else {"transformer"}
        there = [name for name in classes if name in given and name not in ours and (folder / name).is_dir()]
        classes |= {name: tuple(given[name]) for name in there}
    return {name: value for name, value in classes.items() if image or not name.startswith("image_")}


def link_component(name: str, source: Path, folder: Path) -> None:
    """One component of diffusers' layout, its weights checked."""
    if name in ("text_encoder", "image_encoder", "vae"):
        check_weights(source / name)
    link_tree(source / name, folder)


def convert_component(name: str, source: Path, folder: Path, shift: float) -> None:
    """One component of the original layout; the scheduler is made anew."""
    if name == "scheduler":
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        FlowMatchEulerDiscreteScheduler(shift=shift).save_pretrained(folder)
        return None
    if name == "image_processor":
        from transformers import CLIPImageProcessor

        CLIPImageProcessor(size={"height": 224, "width": 224}, do_center_crop=False).save_pretrained(folder)
        return None
    files = sorted(source.glob(ORIGINAL[name]))
    if not files:
        raise InputError(f"{source} lacks {ORIGINAL[name]}, which the {name.replace('_', ' ')} is made of.")
    if name == "tokenizer":
        return link_tree(files[0], folder)
    convert = {"text_encoder": convert_text_encoder, "image_encoder": convert_image_encoder, "vae": convert_autoencoder}
    return convert[name](files[0], folder)


def defaults_of(source: str | Path) -> dict[str, Any]:
    """Settings by the name of the checkpoint: its size and the shift of its noise schedule, as its makers advise."""
    name = str(source).upper()
    height, width = next(
        (size for tag, size in SIZES.items() if tag in name), SIZES["540P" if "SKYREELS" in name else "480P"]
    )
    image = "I2V" in name
    shift = (5.0 if image else 8.0) if "SKYREELS" in name else (3.0 if image and "480P" in name else 5.0)
    # The null of these backbones keeps the picture: they were never trained without it.
    return {"height": height, "width": width, "shift": shift, "unconditional_drops": ["text", "audio"]}
