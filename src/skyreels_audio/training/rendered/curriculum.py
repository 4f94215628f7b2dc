"""What one training step sees of its clips: which task, which region, which conditions (paper, section 2.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from skyreels_audio.faces.framing import region_mask
from skyreels_audio.generation.masks import bounding_cells
from skyreels_audio.models.rope import (
    FRAMES_PER_LATENT,
    FRAMES_PER_SECOND,
    TOKENS_PER_SECOND,
    latent_positions,
    token_positions,
)
from skyreels_audio.training.rendered.clips import AUDIO_MARGIN, Clips
from skyreels_audio.training.rendered.recipe import Curriculum

TOKENS_PER_FRAME = TOKENS_PER_SECOND // FRAMES_PER_SECOND


@dataclass(frozen=True)
class Sample:
    """A batch, ready for the transformer. Latents, conditions and weights share the grid B · T H W."""

    clean_BCTHW: Tensor
    condition_BCTHW: Tensor
    known_B1THW: Tensor
    lips_B1THW: Tensor
    audio_BAD: Tensor
    visemes_BAV: Tensor
    has_audio_B: Tensor
    captions: tuple[str, ...]
    video_positions_T: Tensor
    audio_positions_A: Tensor


def compose(
    clips: Clips, options: Curriculum, latent_frames: int, region: str | None, generator: torch.Generator
) -> Sample:
    """Cut a window out of each clip and decide what of it is given.

    The window's first latent is a *still* of the same scene, as at inference, where every window begins with the pinned
    reference. Image animation gives that still alone; editing gives all but a ``region`` (of ``faces.framing``) as
    well, and sees no more of the frame than the cells of the region, as at inference; a dropped reference leaves text
    alone. Audio and text are dropped independently. A region keeps its reference, since no prompt says which part of a
    frame it is.
    """
    count, total = len(clips), clips.latents_NCTHW.shape[2]

    def chance(probability: float) -> Tensor:
        return torch.rand(count, generator=generator) < probability

    start = int(torch.randint(total - latent_frames + 1, (), generator=generator))
    window = slice(start, start + latent_frames)
    clean = clips.latents_NCTHW[:, :, window].float()
    stills = clips.stills_NRCHW.shape[1]
    chosen = torch.where(chance(0.6), 0, torch.randint(stills, (count,), generator=generator))
    clean[:, :, 0] = clips.stills_NRCHW[torch.arange(count), chosen].float()

    known = torch.zeros_like(clean[:, :1])
    known[:, :, 0] = 1
    lips = clips.lips_NTHW[:, None, window].float() / 255
    if region is None:
        known[chance(options.drop if total > 1 else 1.0)] = 0
    else:
        inside = torch.from_numpy(region_mask(region, (clean.shape[-2], clean.shape[-1])))
        known[:, :, 1:] = (~inside).float()
        rows, columns = bounding_cells(inside)
        clean, known, lips = (x[..., rows, columns] for x in (clean, known, lips))
    condition = clean * known

    first_frame = max(4 * start - 3, 0)
    last_frame = FRAMES_PER_LATENT * (start + latent_frames - 1)
    tokens = slice(TOKENS_PER_FRAME * first_frame, TOKENS_PER_FRAME * (last_frame + 1) + 2 * AUDIO_MARGIN)
    has_audio = ~chance(options.drop)
    audio = clips.audio_NAD[:, tokens].float() * has_audio.view(-1, 1, 1)
    dropped_text = chance(options.drop).tolist()
    return Sample(
        clean_BCTHW=clean,
        condition_BCTHW=condition,
        known_B1THW=known,
        lips_B1THW=lips,
        audio_BAD=audio,
        visemes_BAV=clips.visemes_NAV[:, tokens].float(),
        has_audio_B=has_audio,
        captions=tuple("" if dropped else text for dropped, text in zip(dropped_text, clips.captions, strict=True)),
        video_positions_T=latent_positions(total)[window],
        audio_positions_A=(token_positions(clips.audio_NAD.shape[1]) - AUDIO_MARGIN)[tokens],
    )
