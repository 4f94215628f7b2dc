"""Where the components of a pipeline are kept, so that it fits into a GPU."""

from typing import Any, Literal

import torch

MemoryMode = Literal["fast", "balanced", "low"]
"""fast: all components stay on the GPU. balanced: one component at a time. low: besides, the transformer's blocks are
stored as 8-bit floats in main memory and visit the GPU one by one, the next one while the last one works."""


def apply_memory_mode(pipeline: Any, mode: MemoryMode, device: torch.device | str) -> None:
    """Place the pipeline's components for ``mode``; the device of computation is ``device``.

    Raises:
        ValueError: there is no such mode.
    """
    device = torch.device(device)
    if mode == "fast" or (mode == "balanced" and device.type == "cpu"):
        pipeline.to(device)
    elif mode == "balanced":
        pipeline.enable_model_cpu_offload(device=device)
    elif mode == "low":
        from diffusers.hooks.group_offloading import apply_group_offloading

        options: dict[str, Any] = {"onload_device": device, "use_stream": device.type == "cuda"}
        compute = pipeline.transformer.dtype
        pipeline.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)
        pipeline.transformer.enable_group_offload(offload_type="block_level", num_blocks_per_group=1, **options)
        for name in ("text_encoder", "image_encoder", "audio_encoder"):
            if getattr(pipeline, name, None) is not None:
                apply_group_offloading(getattr(pipeline, name), offload_type="leaf_level", **options)
        pipeline.vae.to(device)
    else:
        raise ValueError(f"memory mode {mode!r}: it is fast, balanced or low.")
