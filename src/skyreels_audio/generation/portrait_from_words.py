"""A portrait from a sentence: flow matching on the code of a portrait, which its autoencoder draws."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.generation.encoders import encode_text


@torch.no_grad()
def generate_portrait(
    prompt: str,
    transformer: Any,
    vae: Any,
    text_encoder: Any,
    tokenizer: Any,
    generator: torch.Generator | None = None,
    steps: int = 12,
    guidance: float = 2.0,
) -> np.ndarray:
    """The portrait that the prompt describes, uint8 [H, W, 3]; what it leaves open the generator decides.

    Args:
        prompt: one sentence; an empty one is anybody.
        transformer: words → codes, of one token.
        vae: ``PortraitAutoencoder``.
        text_encoder, tokenizer: of the transformer's prompts.
        steps: of Euler's method.
        guidance: scale of what the words change; 1 is none.
    """
    tokens = len(tokenizer(prompt).input_ids)
    text_2SD = encode_text([prompt, ""], tokenizer, text_encoder, tokens).to(transformer.dtype)
    mean_C, std_C = (torch.tensor(vae.config[name]) for name in ("latents_mean", "latents_std"))
    noise_C = torch.randn(len(mean_C), generator=generator)
    latents_1C111 = noise_C[None, :, None, None, None].to(transformer.device)
    sigmas = torch.linspace(1, 0, steps + 1)
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        velocity_1C111 = _velocity(transformer, latents_1C111, sigma, text_2SD, guidance)
        latents_1C111 = latents_1C111 + (following - sigma) * velocity_1C111
    code_1C = latents_1C111.flatten(1).cpu() * std_C + mean_C
    sample = vae.decode(code_1C[..., None, None, None].to(vae.device)).sample[0, :, 0]
    return (127.5 * (sample.float().cpu() + 1)).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _velocity(transformer: Any, latents: Tensor, sigma: Tensor, text_2SD: Tensor, guidance: float) -> Tensor:
    """The velocity with words and, where guidance wants it, the one without, weighed against each other."""
    count = 1 if guidance == 1 else 2
    timestep = (1000 * sigma).expand(count).to(latents.device)
    both = transformer(latents.expand(count, -1, -1, -1, -1), timestep, text_2SD[:count]).sample.float()
    return both[:1] if count == 1 else both[1:] + guidance * (both[:1] - both[1:])
