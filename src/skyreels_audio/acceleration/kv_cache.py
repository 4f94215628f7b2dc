"""What the conditions alone determine is the same at every step, so it is computed once per run."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor

from skyreels_audio.acceleration.teacache import replaced
from skyreels_audio.generation.conditions import Conditions, Part
from skyreels_audio.generation.step import Velocity
from skyreels_audio.models.audio_attention import AudioContext, SkyReelsAudioBlock
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel


class _Kept(ModelHook):
    """Returns what the module returned before for the same parts; `CrossAttentionKVCache` says of which parts."""

    fn_ref: Any  # set by the registry

    def __init__(self, cache: "CrossAttentionKVCache", depends_on_audio: bool) -> None:
        super().__init__()
        self.cache = cache
        self.depends_on_audio = depends_on_audio

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        parts = self.cache.parts
        if parts is None:  # called by another velocity
            return self.fn_ref.original_forward(*args, **kwargs)
        if not self.depends_on_audio:  # nor on the window, so that windows share what is kept
            parts = tuple(Part(None, part.drops - {"audio"}) for part in parts)
        return self.cache.keep((module, parts), lambda: self.fn_ref.original_forward(*args, **kwargs))


class CrossAttentionKVCache:
    """A velocity that computes once per run what the conditions alone determine; bit-identical to the one inside.

    Embedded text and image tokens, projected audio tokens with their rotary tables and mask, and the keys and values of
    every cross-attention are kept by `Conditions.parts`, so one such velocity serves one run. `close` takes it off.

    Args:
        velocity: evaluates the transformer.
        transformer: the model inside ``velocity``.
        max_bytes: what does not fit is computed every time.
    """

    def __init__(
        self, velocity: Velocity, transformer: SkyReelsAudioTransformer3DModel, max_bytes: int = 2 << 30
    ) -> None:
        self.velocity = velocity
        self.transformer = transformer
        self.free_bytes = max_bytes
        self.kept: dict[tuple[Any, ...], Any] = {}
        self.parts: tuple[Part, ...] | None = None
        self.hooked: list[torch.nn.Module] = []
        embedder: Any = transformer.condition_embedder
        self._hook(embedder.text_embedder, depends_on_audio=False)
        self._hook(embedder.image_embedder, depends_on_audio=False)
        for block in transformer.blocks:
            assert isinstance(block, SkyReelsAudioBlock)
            for name in ("to_k", "to_v", "add_k_proj", "add_v_proj"):
                self._hook(getattr(block.attn2, name, None), depends_on_audio=False)
            if transformer.config.audio_dim is not None:
                self._hook(block.audio_attn.to_k, depends_on_audio=True)
                self._hook(block.audio_attn.to_v, depends_on_audio=True)

    def __call__(self, latents_BCTHW: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        audio_context = self.transformer.audio_context

        def audio_context_once(*args: Any) -> AudioContext:
            return self.keep(("audio_context", conditions.parts), lambda: audio_context(*args))

        self.parts = conditions.parts
        try:
            with replaced(self.transformer, "audio_context", audio_context_once):
                return self.velocity(latents_BCTHW, t, conditions)
        finally:
            self.parts = None

    def close(self) -> None:
        """Take the hooks off the transformer and forget what was kept."""
        for module in self.hooked:
            HookRegistry.check_if_exists_or_initialize(module).remove_hook("cross_attention_kv_cache", recurse=False)
        self.kept.clear()

    def keep(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        if key in self.kept:
            return self.kept[key]
        value = compute()
        size = sum(tensor.nbytes for tensor in _tensors(value))
        if size <= self.free_bytes:
            self.free_bytes -= size
            self.kept[key] = value
        return value

    def _hook(self, module: torch.nn.Module | None, depends_on_audio: bool) -> None:
        if module is not None:
            registry = HookRegistry.check_if_exists_or_initialize(module)
            registry.register_hook(_Kept(self, depends_on_audio), "cross_attention_kv_cache")
            self.hooked.append(module)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
