"""Audio encoders with their feature extractors, two components of a model folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from skyreels_audio.bundled import bundled
from skyreels_audio.media import InputError
from skyreels_audio.models.convert.hub import local_folder
from skyreels_audio.models.convert.tensors import check_weights, finite, link_tree


@dataclass(frozen=True)
class AudioComponents:
    """Audio encoder and feature extractor: where they come from, their classes, the width of the features, and how to
    write their folders."""

    folder: Path
    classes: dict[str, tuple[str, str]]
    width: int
    write: Callable[[Path], None]


def whisper_components(source: str | Path | None) -> AudioComponents:
    """Whisper's encoder: of a model folder of ours (None: the bundled one), or of a Whisper checkpoint.

    Raises:
        InputError: there is none, or weights are missing.
    """
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    if source is None and not bundled("weights/tiny/audio_encoder").exists():
        raise InputError("No Whisper encoder ships with this installation; name one, e.g. openai/whisper-base.")
    files = ("*.json", "model.safetensors", "audio_encoder/*", "feature_extractor/*")
    folder = bundled("weights/tiny") if source is None else local_folder(source, files)
    ours = (folder / "audio_encoder").is_dir()
    place = folder / "audio_encoder" if ours else folder
    if not (place / "config.json").exists():
        raise InputError(f"{place} is no Whisper checkpoint: it lacks config.json.")
    config = WhisperConfig.from_pretrained(place)

    def write(out: Path) -> None:
        if ours:
            check_weights(folder / "audio_encoder")
            for name in ("audio_encoder", "feature_extractor"):
                link_tree(folder / name, out / name)
            return
        whole = "Encoder" not in "".join(config.architectures or [])
        model = _load(WhisperModel if whole else WhisperEncoder, folder)
        (model.get_encoder() if whole else model).save_pretrained(out / "audio_encoder")
        WhisperFeatureExtractor.from_pretrained(folder).save_pretrained(out / "feature_extractor")

    classes = {
        "audio_encoder": ("skyreels_audio.models.audio_features", "AudioEncoder"),
        "feature_extractor": ("transformers", "WhisperFeatureExtractor"),
    }
    return AudioComponents(folder, classes, config.d_model, write)


def wav2vec_components(source: str | Path, all_layers: bool) -> AudioComponents:
    """wav2vec 2.0, which FantasyTalking (its last layer) and MultiTalk (all of its layers) read audio through.

    Raises:
        InputError: there is none, or weights are missing.
    """
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    folder = local_folder(source, ("*.json", "model.safetensors"))
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is no wav2vec 2.0 checkpoint: it lacks config.json.")
    config = Wav2Vec2Config.from_pretrained(folder)

    def write(out: Path) -> None:
        _load(Wav2Vec2Model, folder).save_pretrained(out / "audio_encoder")
        Wav2Vec2FeatureExtractor.from_pretrained(folder).save_pretrained(out / "feature_extractor")

    classes = {
        "audio_encoder": ("transformers", "Wav2Vec2Model"),
        "feature_extractor": ("transformers", "Wav2Vec2FeatureExtractor"),
    }
    width = config.hidden_size * (config.num_hidden_layers if all_layers else 1)
    return AudioComponents(folder, classes, width, write)


def _load(model_class: Any, folder: Path) -> Any:
    try:
        model, report = model_class.from_pretrained(folder, output_loading_info=True)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{folder} cannot be loaded as {model_class.__name__} ({reason}); download it again."
        ) from error
    missing = set(report["missing_keys"]) - {"masked_spec_embed"}  # which only training reads
    if missing:
        raise InputError(f"{folder} lacks weights: {', '.join(sorted(missing)[:5])}.")
    for name, tensor in model.state_dict().items():
        finite(tensor, name, folder)
    return model
