"""skyreels-audio convert"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from skyreels_audio.cli.progress import Progress
from skyreels_audio.rendering.libraries import silence_libraries


def convert(
    out: Annotated[Path, typer.Option(help="Model folder to make, for `generate --model`.")],
    backbone: Annotated[str | None, typer.Option(help="SkyReels-V2 or Wan 2.1: a folder, or owner/name[@rev].")] = None,
    whisper: Annotated[str | None, typer.Option(help="Whisper for the fresh branch. [default: the bundled]")] = None,
    audio_model: Annotated[
        str | None, typer.Option(help="FantasyTalking, MultiTalk, InfiniteTalk or SkyReels-V3.")
    ] = None,
    wav2vec: Annotated[str | None, typer.Option(help="The audio encoder of --audio-model.")] = None,
    dtype: Annotated[Literal["bfloat16", "float16", "float32"] | None, typer.Option(help="[default: as it is]")] = None,
) -> None:
    """Make a model folder of public weights: a backbone with a fresh audio branch, or with a public audio model."""
    from skyreels_audio.media import InputError

    if (audio_model is None) != (wav2vec is None):
        raise InputError("--audio-model and --wav2vec go together: the weights and the encoder they listen with.")
    if audio_model is None and backbone is None:
        raise InputError("Give --backbone, or --audio-model with --wav2vec; `skyreels-audio convert --help` says more.")
    import torch

    from skyreels_audio.models.convert import convert_audio_model, convert_backbone

    silence_libraries()
    precision = None if dtype is None else getattr(torch, dtype)
    with Progress() as progress:
        if audio_model is not None and wav2vec is not None:
            folder = convert_audio_model(audio_model, backbone, wav2vec, out, precision, progress)
        else:
            assert backbone is not None
            folder = convert_backbone(backbone, out, whisper, dtype=precision, progress=progress)
    typer.echo(f"{folder}: model folder")
