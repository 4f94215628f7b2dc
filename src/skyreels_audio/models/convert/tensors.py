"""Tensors that are described now and loaded when they are written, so that memory never holds a whole model."""

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from skyreels_audio.media import InputError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of dtypes in the safetensors format."""

SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True)
class Lazy:
    """A tensor to come: what it will be, and how to get it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def to(self, dtype: torch.dtype | None) -> "Lazy":
        if dtype is None or dtype == self.dtype or not self.dtype.is_floating_point:
            return self
        return Lazy(self.shape, dtype, lambda: self.load().to(dtype))


Tensors = dict[str, Lazy]


def read_safetensors(path: Path) -> Tensors:
    """The tensors of one file; the file is opened for each of them and closed after it.

    Raises:
        InputError: the file is no safetensors file, or is truncated.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            unknown = sorted({part.get_dtype() for part in slices.values()} - DTYPES.keys())
            if unknown:
                raise InputError(f"{path} holds tensors of type {', '.join(unknown)}, which cannot be converted.")
            return {
                name: Lazy(tuple(part.get_shape()), DTYPES[part.get_dtype()], lambda name=name: _load(path, name))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({error}); download it again.") from error


def read_pickle(path: Path) -> dict[str, Any]:
    """The state dict of a `.pth` or `.ckpt` file, its tensors left on disk until used.

    Raises:
        InputError: the file is truncated, or holds more than tensors: such a pickle could run code, so it is refused.
    """
    try:
        archive = zipfile.is_zipfile(path)
        if not archive and path.open("rb").read(2) == b"PK":
            raise EOFError
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        reason = "holds more than tensors and could run code, so it was not loaded"
        raise InputError(f"{path} {reason}; use a safetensors copy of it.") from error
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is truncated or not a PyTorch file; download it again.") from error


def read_json(path: Path) -> dict[str, Any]:
    """A configuration file.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or cannot be read ({error}); download it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no configuration: it holds no names with values.")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one model: those of its index if there is one, so that a missing shard is noticed.

    Raises:
        InputError: there are none, or some are missing.
    """
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        weight_map = read_json(indexes[0]).get("weight_map")
        if not isinstance(weight_map, dict):
            raise InputError(f"{indexes[0]} does not say which shards hold the weights; download it again.")
        files = [folder / name for name in sorted(set(weight_map.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}; download what is missing and run the command again.")
    if not files:
        raise InputError(f"{folder} is not a model folder: it holds no *.safetensors weights.")
    return files


def check_weights(folder: Path) -> None:
    """Read all weights of a model that is copied as it is.

    Raises:
        InputError: some are missing, cannot be read, or are not finite.
    """
    for path in weight_files(folder):
        for tensor in read_safetensors(path).values():
            tensor.load()


def why(error: Exception) -> str:
    """What an error met while reading weights says of them."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def read_state_dict(path: Path) -> Tensors:
    """The tensors of a safetensors or PyTorch file, names of nested dicts joined by dots."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    tensors: Tensors = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, part in value.items():
                visit(f"{prefix}{name}.", part)
        elif isinstance(value, Tensor):
            name = prefix[:-1]
            tensors[name] = Lazy(tuple(value.shape), value.dtype, lambda: finite(value, name, path))

    visit("", read_pickle(path))
    return tensors


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write tensor by tensor, under a temporary name first. What is there already, whole and alike, is kept.

    Raises:
        InputError: the disk is full, or ``path`` cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    names, end = {dtype: name for name, dtype in DTYPES.items()}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": names[tensor.dtype], "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if path.exists() and path.stat().st_size == 8 + len(text) + end:
        with path.open("rb") as file:
            if file.read(8 + len(text)) == struct.pack("<Q", len(text)) + text:
                return
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, lazy in tensors.items():
                tensor = lazy.load().contiguous()
                assert (tuple(tensor.shape), tensor.dtype) == (lazy.shape, lazy.dtype), name
                file.write(tensor.flatten().view(torch.uint8).numpy().data)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free / 1e9
        raise InputError(
            f"{path} cannot be written: {error.strerror} ({end / 1e9:.1f} GB needed, {free:.1f} GB free); "
            "make room and run the same command again, it goes on from there."
        ) from error


def write_shards(
    folder: Path, stem: str, shards: list[Tensors], report: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Write a model as Hugging Face shards: ``stem.safetensors``, or several of them and an index.

    ``report`` is told how many of them are written, and how many there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if len(shards) == 1:
        return write_safetensors(folder / f"{stem}.safetensors", shards[0])
    weight_map = {}
    for number, tensors in enumerate(shards, start=1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        report(number - 1, len(shards))
        write_safetensors(folder / name, tensors)
        weight_map |= dict.fromkeys(tensors, name)
    total = sum(tensor.nbytes for tensors in shards for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2))


def split_shards(tensors: Tensors, limit: int = SHARD_BYTES) -> list[Tensors]:
    """Group tensors, in order, into shards of at most ``limit`` bytes (a larger tensor makes its own)."""
    shards: list[Tensors] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(other.nbytes for other in shards[-1].values()) + tensor.nbytes > limit:
            shards.append({})
        shards[-1][name] = tensor
    return shards


def check_manifest(found: Tensors, expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Every expected tensor is there, in its shape, and no other.

    Raises:
        InputError: names up to five tensors that are missing, left over or of another shape.
    """
    wrong = [
        f"{n} is {found[n].shape}, not {expected[n]}" for n in found if n in expected and found[n].shape != expected[n]
    ]
    for kind, names in (
        ("lacks", [name for name in expected if name not in found]),
        ("has unexpected tensors:", [name for name in found if name not in expected]),
        ("has tensors of the wrong size:", wrong),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise InputError(f"{what} {kind} {', '.join(names[:5])}{more}.")


def link_tree(source: Path, folder: Path) -> None:
    """The files of ``source`` in ``folder``: hard links where the disk allows: large, and never changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        target = folder / path.name
        if path.is_dir() or (target.exists() and target.stat().st_size == path.stat().st_size):
            continue
        target.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copyfile(path, target)


def finite(tensor: Tensor, name: str, path: Path) -> Tensor:
    """The tensor itself.

    Raises:
        InputError: it holds values that are not finite, as a training that diverged leaves them.
    """
    values = tensor.float() if tensor.dtype.itemsize == 1 and tensor.is_floating_point() else tensor
    if not torch.isfinite(values).all():
        raise InputError(f"{path} holds values that are not finite in {name}; a model with such weights cannot work.")
    return tensor


def _load(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return finite(file.get_tensor(name), name, path)
