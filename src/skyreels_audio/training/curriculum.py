"""What one training step sees of its clips: which task, which region, which conditions (paper, section 2.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from skyreels_audio.models.rope import TOKENS_PER_SECOND, latent_positions, token_positions
from skyreels_audio.training.data import AUDIO_MARGIN, Clips
from skyreels_audio.training.recipe import Curriculum

TOKENS_PER_FRAME = TOKENS_PER_SECOND // 25


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
    clips: Clips, options: Curriculum, latent_frames: int, crop: int | None, generator: torch.Generator
) -> Sample:
    """Cut a window out of each clip and decide what of it is given.

    The window's first latent is a *still* of the same scene, as at inference, where every window begins with the pinned
    reference. Image animation gives that still alone; editing gives all but the lower face as well; a dropped reference
    leaves text-to-video. Audio and text are dropped independently. ``crop``: side of a face-centred crop in latent
    cells, None for whole frames; a crop keeps its reference, since no prompt says which part of a frame it is.
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
    editing = chance(options.editing)
    known[editing] = torch.maximum(known, outside_boxes(clips.lower_face_NT4[:, window], known))[editing]
    if crop is None:
        known[chance(options.drop)] = 0
    lips = clips.lips_NTHW[:, None, window].float() / 255
    condition = clean * known
    if crop is not None:
        boxes = clips.lower_face_NT4[:, window]
        clean, condition, known, lips = crop_around(boxes, crop, clean, condition, known, lips)

    first_frame = max(4 * start - 3, 0)
    last_frame = 4 * (start + latent_frames - 1)
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


def outside_boxes(boxes_BT4: Tensor, like_B1THW: Tensor) -> Tensor:
    """1 for cells wholly outside the box of their latent frame, 0 for those it touches."""
    rows, columns = like_B1THW.shape[-2:]
    left, top, right, bottom = (boxes_BT4[..., i, None, None] for i in range(4))
    y = torch.arange(rows, dtype=torch.float).view(1, 1, -1, 1)
    x = torch.arange(columns, dtype=torch.float).view(1, 1, 1, -1)
    touched = (x + 1 > left) & (x < right) & (y + 1 > top) & (y < bottom)
    return (~touched).float().unsqueeze(1)


def crop_around(boxes_BT4: Tensor, side: int, *grids: Tensor) -> tuple[Tensor, ...]:
    """Cut ``side`` × ``side`` cells around each sample's lower face from every grid, on even cells as patches are."""
    rows, columns = grids[0].shape[-2:]
    x, y = ((boxes_BT4[..., i] + boxes_BT4[..., i + 2]).mean(1) / 2 for i in (0, 1))
    top = ((y - side / 2) / 2).round().long().mul(2).clamp(0, rows - side)
    left = ((x - side / 2) / 2).round().long().mul(2).clamp(0, columns - side)
    index_y = top[:, None] + torch.arange(side)
    index_x = left[:, None] + torch.arange(side)
    batch = torch.arange(len(boxes_BT4))[:, None, None]

    def cut(grid: Tensor) -> Tensor:
        return grid.permute(0, 3, 4, 1, 2)[batch, index_y[:, :, None], index_x[:, None, :]].permute(0, 3, 4, 1, 2)

    return tuple(cut(grid) for grid in grids)
