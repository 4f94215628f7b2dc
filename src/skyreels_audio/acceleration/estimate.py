"""What a run will need on a GPU, known before anything is loaded."""

import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skyreels_audio.acceleration.offload import MemoryMode
from skyreels_audio.generation.latents import spatial_factor
from skyreels_audio.generation.windows import plan_windows
from skyreels_audio.media import InputError
from skyreels_audio.models.rope import FRAMES_PER_LATENT

TERAFLOPS = 390.0
"""Sustained bfloat16 rate of an H100, from the 9.77 s that diffusers takes for a step of Wan 2.1 I2V 14B at 480p."""

BUS_BYTES_PER_SECOND = 25e9  # PCIe 4 × 16 in practice
CONTEXT_BYTES = 0.6e9  # what CUDA and its libraries take for themselves


@dataclass(frozen=True)
class ModelShape:
    """Components on the meta device: their sizes, and no weights."""

    transformer: Any
    vae: Any
    encoders: tuple[nn.Module, ...]
    """Text, image and audio encoder."""

    @classmethod
    def read(cls, folder: Path, dtype: torch.dtype = torch.bfloat16) -> "ModelShape":
        """The shape of a model folder, from its configuration files alone.

        Raises:
            InputError: the folder is no model, or one of its configuration files cannot be read.
        """
        if not (folder / "model_index.json").exists():
            raise InputError(f"{folder} is not a model folder: it has no model_index.json.")
        index = json.loads((folder / "model_index.json").read_text())

        def build(name: str) -> Any:
            module, class_name = index.get(name) or (None, None)
            if module is None or class_name is None:
                return None
            try:
                model_class = getattr(import_module(module), class_name)
                with on_meta(dtype):
                    if hasattr(model_class, "config_class") and model_class.config_class is not None:
                        model = model_class(model_class.config_class.from_pretrained(folder / name))
                    else:
                        model = model_class.from_config(model_class.load_config(folder / name))
            except (OSError, ValueError, TypeError, ImportError, AttributeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise InputError(
                    f"{folder / name} has no readable config.json of a {class_name} ({reason})."
                ) from error
            return model.eval()

        encoders = [build(name) for name in ("text_encoder", "image_encoder", "audio_encoder")]
        return cls(build("transformer"), build("vae"), tuple(model for model in encoders if model is not None))


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak bytes on the GPU in each phase, and seconds of denoising."""

    encode: float
    sample: float
    decode: float
    seconds: float

    @property
    def peak(self) -> float:
        return max(self.encode, self.sample, self.decode)

    def __str__(self) -> str:
        parts = f"encoding {self.encode / 1e9:.1f}, denoising {self.sample / 1e9:.1f}, decoding {self.decode / 1e9:.1f}"
        time = f"{self.seconds / 60:.0f} min" if self.seconds >= 60 else f"{self.seconds:.0f} s"
        return f"about {self.peak / 1e9:.1f} GB at most ({parts}) and {time} of denoising"


@torch.no_grad()
def estimate(
    shape: ModelShape,
    height: int,
    width: int,
    frames: int,
    mode: MemoryMode,
    steps: int = 50,
    branches: int = 3,
    window: int = 21,
    overlap: int = 5,
    teraflops: float = TERAFLOPS,
) -> MemoryEstimate:
    """Estimate memory and time of a video. Nothing is loaded or computed: tensors are followed on the meta device.

    Args:
        shape: the model.
        height, width, frames: of the video, in pixels and pixel frames.
        mode: see ``MemoryMode``.
        steps: of denoising.
        branches: evaluations of the transformer per step and window: 3 with audio and text guidance, 1 without.
        window, overlap: in latents, as in ``Settings``.
        teraflops: sustained rate of the device.
    """
    transformer, vae = shape.transformer, shape.vae
    latents = -(-(frames - 1) // FRAMES_PER_LATENT) + 1
    span = min(latents, window)
    factor = spatial_factor(vae)
    size = (max(height // factor, 1), max(width // factor, 1))
    weights = {model: tensor_bytes(model) for model in (transformer, vae, *shape.encoders)}
    block = tensor_bytes(transformer.blocks[0])
    if mode == "low":  # 8-bit blocks: the one at work, half of it in 16 bit, and the next
        resident = weights[transformer] - len(transformer.blocks) * block + 1.5 * block
        text = max(max(tensor_bytes(leaf) for leaf in leaves(model)) for model in shape.encoders)
    else:
        resident, text = weights[transformer], max(weights[model] for model in shape.encoders)
    held = sum(weights.values()) if mode == "fast" else 0
    timeline = 3 * 4 * latents * transformer.config.in_channels * size[0] * size[1]  # latents and conditions, float32
    working = transformer_bytes(transformer, span, size)
    decoding = decoder_bytes(vae, size)
    fixed = CONTEXT_BYTES + timeline
    evaluations = steps * branches * len(plan_windows(latents, window, overlap))
    compute = transformer_flops(transformer, span, size) / (teraflops * 1e12)
    transfer = len(transformer.blocks) * block / 2 / BUS_BYTES_PER_SECOND if mode == "low" else 0.0
    return MemoryEstimate(
        encode=fixed + (held or text),
        sample=fixed + (held or resident) + working,
        decode=fixed + (held or weights[vae]) + decoding,
        seconds=evaluations * max(compute, transfer),
    )


def transformer_bytes(transformer: Any, latents: int, size: tuple[int, int]) -> float:
    """Peak of what one evaluation allocates besides the weights."""
    config, dtype = transformer.config, transformer.dtype
    tokens = 2 * 4 * latents
    with torch.device("meta"), allocations() as peak:
        transformer(
            torch.empty(1, config.in_channels, latents, *size, dtype=dtype),
            torch.empty(1),
            torch.empty(1, 512, config.text_dim, dtype=dtype),
            None if config.image_dim is None else torch.empty(1, 257, config.image_dim, dtype=dtype),
            audio_hidden_states=None if config.audio_dim is None else torch.empty(1, tokens, config.audio_dim),
        )
    return peak[0]


def decoder_bytes(vae: Any, size: tuple[int, int]) -> float:
    """Peak of what the streamed decoding of three latents allocates; more latents need no more."""
    from skyreels_audio.generation.decoding import decode_wan
    from skyreels_audio.models.motion_autoencoder import MotionAutoencoder

    if isinstance(vae, MotionAutoencoder):
        return motion_bytes(vae)
    with torch.device("meta"), allocations() as peak:
        latents_BCTHW = torch.empty(1, vae.config.z_dim, 3, *size, dtype=vae.dtype)
        for frames in decode_wan(vae, latents_BCTHW):
            del frames
    return peak[0]


def motion_bytes(vae: Any) -> float:
    """Peak of what moving a batch of faces allocates."""
    from skyreels_audio.generation.compositing import BATCH
    from skyreels_audio.models.motion_autoencoder import FACE_CHANNELS

    with torch.device("meta"), allocations() as peak:
        source = torch.empty(1, 3, *vae.place_2HW.shape[1:], dtype=vae.dtype)
        vae.move(torch.empty(BATCH, len(FACE_CHANNELS), dtype=vae.dtype), vae.read_source(source))
    return peak[0]


def transformer_flops(transformer: Any, latents: int, size: tuple[int, int]) -> float:
    """Operations of one evaluation: two per weight and token, and the products of self-attention."""
    patch, config = transformer.config.patch_size, transformer.config
    tokens = latents * (size[0] // patch[1]) * (size[1] // patch[2])
    width = config.num_attention_heads * config.attention_head_dim
    weights = sum(parameter.numel() for parameter in transformer.blocks.parameters())
    return 2.0 * weights * tokens + 4.0 * config.num_layers * tokens**2 * width


def tensor_bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])


def leaves(module: nn.Module) -> Iterator[nn.Module]:
    return (child for child in module.modules() if not list(child.children()))


@contextmanager
def on_meta(dtype: torch.dtype) -> Iterator[None]:
    """Models made in the block have parameters of this type, and no data."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def allocations() -> Iterator[list[int]]:
    """Follow the tensors made in the block, as an allocator would: yields a list whose one item is the peak in bytes.

    Attention and RMS norms count as the fused kernels do them: the output alone, no matrix of scores.
    """
    live, peak, known = [0], [0], weakref.WeakSet()

    def freed(count: int) -> None:
        live[0] -= count

    class Follow(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = tree_leaves((args, kwargs))  # weights among them: they, and views of them, are not new
            known.update(tensor.untyped_storage() for tensor in given if isinstance(tensor, Tensor))
            result = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in known:
                    known.add(storage)
                    live[0] += storage.nbytes()
                    weakref.finalize(storage, freed, storage.nbytes())
            peak[0] = max(peak[0], live[0])
            return result

    class Fused(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in (F.scaled_dot_product_attention, F.rms_norm):
                return torch.empty_like(args[0] if args else (kwargs or {})["query"])
            return func(*args, **(kwargs or {}))

    with Fused(), Follow():
        yield peak
