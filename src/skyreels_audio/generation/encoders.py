"""What the encoders of a model make of prompts, pictures and a voice: the conditions of a video.

Everywhere ``model`` has the components of a model folder by their names: it is a ``SkyReelsAudioPipeline``.

Legend: B batch, F pixel frame, H W pixels, n sample, S text token, N image token, D width of an encoder.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import latent_voice_activity
from skyreels_audio.generation.latents import build_reference
from skyreels_audio.generation.settings import Settings
from skyreels_audio.models.audio_features import encode_audio_features, voice_activity
from skyreels_audio.models.rope import FRAMES_PER_LATENT, latent_positions, token_positions


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
def encode_prompts(
    model: Any,
    prompt: str,
    negative_prompt: str,
    prompt_embeds: Tensor | None,
    negative_prompt_embeds: Tensor | None,
    settings: Settings,
) -> Tensor:
    """Text tokens of the prompt and of what stands for its absence [2, S, D], each encoded if it is not given.

    Raises:
        ValueError: those given are of different lengths.
    """
    given = prompt_embeds, negative_prompt_embeds
    lengths = {x.shape[1] for x in given if x is not None} or {settings.text_tokens}
    if len(lengths) > 1:
        raise ValueError(f"prompt_embeds and negative_prompt_embeds must be equally long, not {lengths}.")
    if any(x is None for x in given):
        encoded_2SD = encode_text([prompt, negative_prompt], model.tokenizer, model.text_encoder, *lengths)
        given = [encoded_2SD[i : i + 1] if x is None else x for i, x in enumerate(given)]
    return torch.cat([x.to(model._execution_device, model.transformer.dtype) for x in given if x is not None])


@torch.no_grad()
def encode_conditions(
    model: Any,
    given_FHWC: np.ndarray | None,
    known_FHW: np.ndarray | None,
    waveform_n: Tensor,
    text_2SD: Tensor,
    latents: int,
    settings: Settings,
) -> Conditions:
    """All conditions of a timeline of ``latents`` latents."""
    device = model._execution_device
    video_positions_T = latent_positions(latents, settings.fps)
    audio_BAD = audio_positions_A = activity_T = None
    if model.transformer.config.audio_dim is not None:
        encoder = model.feature_extractor, model.audio_encoder, model.transformer.config.frame_window
        audio_AD, audio_positions_A = encode_audio_features(
            waveform_n, *encoder, settings.fps, settings.audio_feature_rounding
        )
        audio_BAD = audio_AD[None].to(device)
        if settings.silence_guidance_fade:
            activity_A = voice_activity(waveform_n)
            activity_T = latent_voice_activity(activity_A, token_positions(len(activity_A)), video_positions_T)
    # A still picture looks the same from every window, so one window of it is enough.
    moving = known_FHW is not None and len(known_FHW) > FRAMES_PER_LATENT * (settings.window - 1) + 1
    span = latents if moving else min(latents, settings.window)
    reference_BCTHW, known_B4THW = encode_reference(model, given_FHWC, known_FHW, span, settings)
    return Conditions(
        text_BSD=text_2SD[:1],
        null_text_BSD=text_2SD[1:],
        audio_BAD=audio_BAD,
        audio_positions_A=audio_positions_A,
        reference_BCTHW=reference_BCTHW,
        known_B4THW=known_B4THW,
        video_positions_T=video_positions_T,
        image_BND=encode_image(model, None if given_FHWC is None else given_FHWC[0]),
        voice_activity_T=activity_T,
        audio_reach=model.transformer.audio_reach,
    )


@torch.no_grad()
def encode_reference(
    model: Any, given_FHWC: np.ndarray | None, known_FHW: np.ndarray | None, latents: int, settings: Settings
) -> tuple[Tensor, Tensor]:
    """The first frames of what is given as latents [1, C, T, H, W] and mask [1, 4, T, H, W]."""
    if given_FHWC is not None:
        given_FHWC = given_FHWC[: FRAMES_PER_LATENT * (latents - 1) + 1]
        known_FHW = None if known_FHW is None else known_FHW[: len(given_FHWC)]
    size = (settings.height, settings.width)
    return build_reference(given_FHWC, known_FHW, latents, model.vae, size, model._execution_device)


@torch.no_grad()
def encode_image(model: Any, image_HWC: np.ndarray | None) -> Tensor | None:
    """CLIP tokens [1, N, D] of the reference (uint8), the last layer but one, as in Wan; zeros without a reference.

    None if the transformer does not read them. Raises ValueError if it does and there is no encoder.
    """
    if model.transformer.config.image_dim is None:
        return None
    if model.image_encoder is None or model.image_processor is None:
        raise ValueError(
            "This transformer reads CLIP tokens: load the pipeline with image_encoder and image_processor."
        )
    shown = np.zeros((224, 224, 3), np.uint8) if image_HWC is None else image_HWC
    pixels = model.image_processor(images=Image.fromarray(shown), return_tensors="pt").pixel_values
    pixels = pixels.to(model._execution_device, model.image_encoder.dtype)
    tokens_BND = model.image_encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
    return (torch.zeros_like(tokens_BND) if image_HWC is None else tokens_BND).to(model.transformer.dtype)
