"""What the text and image encoders make of a prompt and of a picture.

Legend: B batch, S text token, N image token, D width of an encoder.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@torch.no_grad()
def encode_text(prompts: list[str], tokenizer: Any, text_encoder: Any, tokens: int) -> Tensor:
    """Encode prompts as [B, S, D], S = ``tokens``: the encoder sees no padding and padding is zeros, as in Wan."""
    ids = tokenizer(
        prompts,
        padding="max_length",
        max_length=tokens,
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    ).to(text_encoder.device)
    states_BSD = text_encoder(ids.input_ids, attention_mask=ids.attention_mask).last_hidden_state
    return states_BSD * ids.attention_mask[..., None].to(states_BSD)


@torch.no_grad()
def encode_image(
    image_HWC: np.ndarray | None, image_processor: Any, image_encoder: Any, device: torch.device
) -> Tensor:
    """CLIP tokens [1, N, D] of a picture (uint8), the last layer but one, as in Wan; zeros without a picture."""
    shown = np.zeros((224, 224, 3), np.uint8) if image_HWC is None else image_HWC
    pixels = image_processor(images=Image.fromarray(shown), return_tensors="pt").pixel_values
    pixels = pixels.to(device, image_encoder.dtype)
    tokens_BND = image_encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
    return torch.zeros_like(tokens_BND) if image_HWC is None else tokens_BND
