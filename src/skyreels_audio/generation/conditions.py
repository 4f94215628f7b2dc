"""What a video is conditioned on, as one value, and how its parts are made.

Legend: B batch, C latent channel, T latent frame, F pixel frame, H W grid (latent or pixel), S text token,
A audio token, N image token, D width of an encoder.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.generation.encoding import encode
from skyreels_audio.generation.masks import fold, pool_known
from skyreels_audio.models.rope import FRAMES_PER_LATENT

PIECE = 8 * FRAMES_PER_LATENT
"""Frames that are encoded at once."""


@dataclass(frozen=True)
class Conditions:
    """Everything the transformer sees besides the noisy latents and the time.

    Attributes:
        text_BSD, null_text_BSD: the encoded prompt, and what stands for its absence (the encoded negative prompt).
        audio_BAD, audio_positions_A: audio tokens and their positions on the clock (``models.rope``);
            None: no audio branch.
        reference_BCTHW: normalised latents of the given pixels. Image animation needs only one window of them: when the
            reference is shorter than the timeline, every window sees it from its beginning, as training clips do.
        known_B4THW: 1 where the reference is given, 0 where pixels are to be invented; four time-folded channels.
        video_positions_T: positions of the latent frames on the clock.
        image_BND: CLIP tokens of the reference image, for backbones that read them.
        voice_T: voice activity of each latent in [0, 1], which eases audio guidance in silence; None: full guidance.
        audio_reach: how far beyond a window's own time its audio reaches, in token units (20 ms).
        key: what was dropped and which window this is, e.g. ("16:37", "-audio"): step caches keep their state by it.
    """

    text_BSD: Tensor
    null_text_BSD: Tensor
    audio_BAD: Tensor | None
    audio_positions_A: Tensor | None
    reference_BCTHW: Tensor
    known_B4THW: Tensor
    video_positions_T: Tensor
    image_BND: Tensor | None = None
    voice_T: Tensor | None = None
    audio_reach: float = 0.0
    key: tuple[str, ...] = ()

    def drop(self, *names: str, rows_B: Tensor | None = None) -> "Conditions":
        """Null the conditions ``names`` out of "text", "audio", "reference"; only in the batch ``rows_B`` if given.

        Text becomes the null text, audio features become zeros, the reference becomes zeros of which nothing is known
        (its CLIP tokens too). Training (`training.curriculum`) nulls them alike, so the model meets what it knows.
        """
        null_of = {
            "text": {"text_BSD": self.null_text_BSD},
            "audio": {"audio_BAD": _zeros(self.audio_BAD)},
            "reference": {
                "reference_BCTHW": _zeros(self.reference_BCTHW),
                "known_B4THW": _zeros(self.known_B4THW),
                "image_BND": _zeros(self.image_BND),
            },
        }
        unknown = set(names) - null_of.keys()
        assert not unknown, f"no such condition: {sorted(unknown)}"
        nulls = {field: null for name in names for field, null in null_of[name].items()}
        if rows_B is not None:
            nulls = {field: _select(rows_B, null, getattr(self, field)) for field, null in nulls.items()}
        return replace(self, **nulls, key=(*self.key, *(f"-{name}" for name in names)))

    def crop(self, rows: slice, columns: slice) -> "Conditions":
        """The conditions of a box of latents."""
        given = {name: getattr(self, name)[..., rows, columns] for name in ("reference_BCTHW", "known_B4THW")}
        return replace(self, **given)

    def window(self, start: int, stop: int) -> "Conditions":
        """The conditions of latents ``start`` … ``stop - 1``, whose first one carries the reference of the timeline.

        The network was trained on clips that begin with the reference frame, so each window begins with it too
        (latent 0 and its mask); what it makes of that latent has no weight in the fusion of windows. Audio is cut to
        what the window's own latents cover, plus ``audio_reach`` on either side.
        """
        positions = self.video_positions_T[start:stop]
        # A latent covers the time half-way to its neighbours.
        half = 0.0 if len(positions) < 2 else float(positions[-1] - positions[-2]) / 2
        audio, audio_positions = self.audio_BAD, self.audio_positions_A
        if audio is not None and audio_positions is not None:
            reach = half + self.audio_reach
            edges = torch.stack([positions[0] - reach, positions[-1] + reach]).to(audio_positions)
            first, last = torch.searchsorted(audio_positions, edges).tolist()
            audio, audio_positions = audio[:, first:last], audio_positions[first:last]

        timeline, stationary = len(self.video_positions_T), self.reference_BCTHW.shape[2]
        assert timeline == stationary or stop - start <= stationary, "a short reference must fill a window"

        def from_reference(x_BCTHW: Tensor) -> Tensor:
            if stationary < timeline or start == 0:
                return x_BCTHW[:, :, : stop - start]
            return torch.cat([x_BCTHW[:, :, :1], x_BCTHW[:, :, start + 1 : stop]], dim=2)

        return replace(
            self,
            audio_BAD=audio,
            audio_positions_A=audio_positions,
            reference_BCTHW=from_reference(self.reference_BCTHW),
            known_B4THW=from_reference(self.known_B4THW),
            video_positions_T=positions,
            voice_T=None if self.voice_T is None else self.voice_T[start:stop],
            key=(*self.key, f"{start}:{stop}"),
        )


def _zeros(x: Tensor | None) -> Tensor | None:
    return None if x is None else torch.zeros_like(x)


def _select(rows_B: Tensor, null: Tensor | None, given: Tensor | None) -> Tensor | None:
    if null is None or given is None:
        return given
    return torch.where(rows_B.view(-1, *[1] * (given.ndim - 1)).to(given.device), null, given)


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
def build_reference(
    frames_FHWC: np.ndarray | None,
    known_FHW: np.ndarray | None,
    latents: int,
    vae: Any,
    size: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """V_s and V_M of the paper: normalised latents of the given pixels [1, C, T, H, W] and their mask [1, 4, T, H, W].

    Image animation gives one frame; what follows is empty (grey before encoding). Video editing gives all frames and
    what is known of them (1 = given pixel); the first frame is the reference and always known. Text alone gives
    nothing: zeros. The mask is that of ``masks.to_latent``. Frames are read and encoded a few at a time.

    Args:
        frames_FHWC: uint8 RGB at the size of the video; up to ``4 (T - 1) + 1`` of them.
        known_FHW: 1 where pixels of ``frames_FHWC`` are given; None: everywhere.
        latents: T.
        vae: causal video autoencoder.
        size: pixel height and width, needed when there are no frames.
        device: where the autoencoder runs; None: where it is.
    """
    count = FRAMES_PER_LATENT * (latents - 1) + 1
    height, width = frames_FHWC.shape[1:3] if frames_FHWC is not None else size or (0, 0)
    factor, device = spatial_factor(vae), device or vae.device
    if frames_FHWC is None:
        shape = (1, vae.config.z_dim, latents, height // factor, width // factor)
        return torch.zeros(shape, device=device), torch.zeros(1, FRAMES_PER_LATENT, *shape[2:], device=device)

    given = len(frames_FHWC)
    assert given <= count, "more frames than the timeline holds"
    shown_F = np.arange(count).clip(max=given - 1)  # a video that ends within a latent goes on with its last frame
    pieces = list(pairwise([0, *range(1, count, PIECE), count]))  # memory holds one of them

    def known(start: int, stop: int) -> Tensor:
        if known_FHW is None:
            part_FHW = torch.zeros(stop - start, height, width)
            part_FHW[: max(given - start, 0)] = 1
        else:
            part_FHW = torch.from_numpy(np.asarray(known_FHW[shown_F[start:stop]], np.float32))
        if not start:
            part_FHW[0] = 1
        return part_FHW

    def pixels(start: int, stop: int) -> Tensor:
        pixels_FCHW = torch.from_numpy(frames_FHWC[shown_F[start:stop]]).permute(0, 3, 1, 2) / 127.5 - 1
        return (pixels_FCHW * known(start, stop)[:, None]).transpose(0, 1)[None].to(device, vae.dtype)

    latents_BCTHW = encode((pixels(*piece) for piece in pieces), vae)
    mask_4THW = fold(torch.cat([pool_known(known(*piece), factor) for piece in pieces]))
    return normalise(latents_BCTHW.float(), vae), mask_4THW[None].to(device)


def spatial_factor(vae: Any) -> int:
    """Pixels per latent pixel."""
    return vae.config.get("scale_factor_spatial") or vae.scale_factor_spatial


def latent_statistics(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that bring the autoencoder's latents to unit scale, each [C, 1, 1, 1]."""
    channels = vae.config.z_dim
    mean, std = vae.config.latents_mean or [0.0] * channels, vae.config.latents_std or [1.0] * channels
    return like.new_tensor(mean).view(-1, 1, 1, 1), like.new_tensor(std).view(-1, 1, 1, 1)


def normalise(latents_BCTHW: Tensor, vae: Any) -> Tensor:
    """The autoencoder's latents → latents of unit scale, which the transformer works on."""
    mean, std = latent_statistics(vae, latents_BCTHW)
    return (latents_BCTHW - mean) / std
