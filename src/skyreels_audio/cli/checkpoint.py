"""Model folders, checked before they are loaded: what is wrong in one is told by file and entry."""

import inspect
import json
import math
import struct
from pathlib import Path
from typing import Any, get_type_hints

from skyreels_audio.media.files import InputError
from skyreels_audio.rendering.libraries import silence_libraries

LIBRARIES = ("diffusers", "transformers", "skyreels_audio.")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")  # may run code when they are read
LARGEST = 10_000_000  # no entry of a configuration is larger; vocabularies have 256 thousand words
MOST_LAYERS = 1000
RETIRED = "CausalVideoAutoencoder"  # of checkpoints that were made before latents were motion
HEADER_BYTES = 100_000_000  # of a safetensors file, the most that its format allows


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``, whose numbers are finite. Raises ``InputError``."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as JSON: {reason}.") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a JSON object but {_kind(data)}.")
    for name, value in data.items():
        _check_numbers(path, name, value)
    return data


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")


def _check_numbers(path: Path, name: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_numbers(path, f"{name}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(path, name, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{path}: {name} is {value}, not a finite number.")


def components(model: Path) -> dict[str, tuple[str, str]]:
    """Module and class of each part of a checkpoint, by its folder. Raises ``InputError``."""
    try:
        index = read_object(model / "model_index.json")
    except InputError as error:
        raise InputError(f"{model} is not a checkpoint: {error}") from None
    parts = {}
    for name, entry in index.items():
        if name.startswith("_") or name == "generation_defaults" or entry in (None, [None, None]):
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)):
            raise InputError(f"{model / 'model_index.json'}: {name} is not a module and a class, such as {_EXAMPLE}.")
        if not entry[0].startswith(LIBRARIES):
            raise InputError(f"{model / 'model_index.json'}: {name} is of {entry[0]}, not of diffusers, transformers.")
        if entry[1] == RETIRED:
            where = model / "model_index.json"
            raise InputError(f"{where}: {name} is {RETIRED}, of an earlier version of this package; make it anew.")
        parts[name] = entry[0], entry[1]
    return parts


_EXAMPLE = '["diffusers", "AutoencoderKLWan"]'


def check_files(model: Path) -> None:
    """Whether a checkpoint has its parts, each with a configuration that can be read, and no pickles for weights."""
    if not model.is_dir():
        raise InputError(f"{model} is not a checkpoint: there is no such folder.")
    parts = components(model)
    for needed in ("transformer", "vae", "scheduler", "text_encoder", "tokenizer"):
        if needed not in parts:
            raise InputError(f"{model} is not a checkpoint: {model / 'model_index.json'} names no {needed}.")
    for name in parts:
        folder = model / name
        if not folder.is_dir():
            raise InputError(f"{model} is not a checkpoint: it has no folder {name}.")
        for config in sorted(folder.glob("*config.json")):
            read_object(config)
        files = list(folder.iterdir())
        pickle = next((file for file in files if file.suffix in PICKLES), None)
        if pickle is not None and not any(file.suffix == ".safetensors" for file in files):
            raise InputError(f"{pickle} is a pickle, which may run code when it is read; save it as safetensors.")


def check_classes(model: Path) -> None:
    """Whether configurations fit their classes, and weights their configurations. Imports the libraries."""
    for name, (library, class_name) in components(model).items():
        kind = _class(model, name, library, class_name)
        try:
            _check_component(model / name, kind)
        except InputError as error:
            raise InputError(f"{model} cannot be loaded: {error}") from error


def _check_component(folder: Path, kind: Any) -> None:
    """What has weights is checked with them; of tokenizers and the like their own libraries know what is right."""
    if hasattr(kind, "load_config"):  # diffusers' way of configuration
        path = folder / kind.config_name
        config = read_object(path)
        check_entries(path, config, kind)
        if hasattr(kind, "named_parameters"):
            check_weights(path, config, kind)
    elif hasattr(kind, "config_class") and hasattr(kind, "named_parameters"):  # transformers' way
        check_transformers_weights(folder / "config.json", kind)


def _class(model: Path, name: str, library: str, class_name: str) -> Any:
    from importlib import import_module

    try:
        return getattr(import_module(library), class_name)
    except (ImportError, AttributeError):
        where = model / "model_index.json"
        raise InputError(f"{where}: {name} is of class {class_name}, which {library} does not have.") from None


def check_entries(path: Path, config: dict[str, Any], kind: Any) -> None:
    """Whether a class of diffusers takes these entries; schedulers may have those of others that they replace."""
    types: dict[str, Any] = {}
    for each in (*getattr(kind, "_get_compatibles", list)(), kind):
        types |= {name: Any for name in inspect.signature(each.__init__).parameters}
    types |= get_type_hints(kind.__init__)
    own = {name: value for name, value in config.items() if not name.startswith("_")}
    defaults = {name: each.default for name, each in inspect.signature(kind.__init__).parameters.items()}
    types |= {name: Any for name, value in own.items() if name in defaults and value == defaults[name]}  # float = None
    for name, value in own.items():
        if isinstance(value, int) and abs(value) > LARGEST:
            raise InputError(f"{path}: {name} is {value}, larger than {LARGEST}.")
        positive = name.startswith("num_") or name == "eps"
        if positive and isinstance(value, int | float) and value <= 0:
            raise InputError(f"{path}: {name} must be above 0, not {value}.")
        if name in ("latents_mean", "latents_std") and isinstance(value, list) and len(value) != own.get("z_dim"):
            raise InputError(f"{path}: {name} has {len(value)} numbers, but z_dim is {own.get('z_dim')}.")
        if name.endswith(("layers", "blocks")) and isinstance(value, int) and not 0 <= value <= MOST_LAYERS:
            raise InputError(f"{path}: {name} must be from 0 to {MOST_LAYERS}, not {value}.")
    check_values(path, own, types, kind.__name__)


def check_values(path: Path, values: dict[str, Any], types: dict[str, Any], owner: str) -> None:
    """Whether each of the values is known and of its type."""
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    for name, value in values.items():
        if name not in types:
            raise InputError(f"{path}: {owner} has no entry named {name}.")
        try:
            TypeAdapter(types[name]).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise InputError(f"{path}: {name} cannot be {json.dumps(value)[:80]} ({reason}).") from None
        except PydanticUserError:  # an annotation that pydantic does not know
            continue


def check_weights(path: Path, config: dict[str, Any], kind: Any) -> None:
    """Whether the safetensors beside a configuration hold the tensors of the diffusers module that it makes."""
    import torch

    held = _held(path)
    blocks = {name.split(".")[1] for name in held if name.startswith("blocks.")}
    if blocks and config.get("num_layers", len(blocks)) != len(blocks):
        raise InputError(f"{path}: num_layers is {config['num_layers']}, but the weights have {len(blocks)} blocks.")
    try:
        with torch.device("meta"):
            wanted = {name: list(tensor.shape) for name, tensor in kind.from_config(config).state_dict().items()}
    except Exception as error:  # whatever a class says of numbers that do not go together
        raise InputError(f"{path}: no {kind.__name__} can be made of it ({_first_line(error)}).") from error
    for name, shape in wanted.items():
        if name not in held:
            raise InputError(f"{path} does not fit its weights: they have no {name}.")
        if held[name] != shape:
            raise InputError(f"{path} does not fit its weights: {name} has the shape {held[name]}, not {shape}.")


def check_transformers_weights(path: Path, kind: Any) -> None:
    """The same of a class of transformers, which itself knows what is tied and what older versions named otherwise.

    Nothing of the weights is read but their names and shapes.
    """
    _held(path)
    silence_libraries()
    options: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True, "use_safetensors": True}
    try:
        _, found = kind.from_pretrained(path.parent, device_map="meta", **options)
    except Exception as error:
        raise InputError(f"{path}: no {kind.__name__} can be made of it ({_first_line(error)}).") from error
    for name in sorted(found["missing_keys"]):
        raise InputError(f"{path} does not fit its weights: they have no {name}.")
    for name, held, wanted in sorted(found["mismatched_keys"]):
        raise InputError(f"{path} does not fit its weights: {name} has the shape {list(held)}, not {list(wanted)}.")


def _held(path: Path) -> dict[str, list[int]]:
    """The tensors beside a configuration, of which there is at least one."""
    held = {name: shape for file in sorted(path.parent.glob("*.safetensors")) for name, shape in tensors(file).items()}
    if not held:
        raise InputError(f"{path.parent} has no weights: a safetensors file with at least one tensor.")
    return held


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def tensors(file: Path) -> dict[str, list[int]]:
    """Names and shapes of the tensors in a safetensors file, which is whole. Raises ``InputError``."""
    try:
        with file.open("rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            if length > HEADER_BYTES:
                raise ValueError
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        shapes = {name: [int(side) for side in each["shape"]] for name, each in header.items()}
        end = max((each["data_offsets"][1] for each in header.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error):
        raise InputError(f"{file} is damaged: it is not a safetensors file.") from None
    if file.stat().st_size < 8 + length + end:
        raise InputError(f"{file} is truncated.")
    return shapes
