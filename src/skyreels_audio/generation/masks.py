"""Face → pixel mask → latent mask. *Known* is 1 where a pixel is given and 0 where it is to be invented.

F pixel frame, T latent frame (F = 4(T-1)+1; latent 0 is frame 0, latent i frames 4i-3..4i), H W pixel grid, h w latent
grid.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from skyreels_audio.models.rope import FRAMES_PER_LATENT


def latent_frames(frames: int) -> int:
    """T of F frames. Raises ValueError unless F = 4(T-1)+1."""
    if frames < 1 or (frames - 1) % FRAMES_PER_LATENT:
        raise ValueError(f"a clip has {FRAMES_PER_LATENT}n+1 frames, not {frames}")
    return (frames - 1) // FRAMES_PER_LATENT + 1


def editing_known(boxes: Sequence[np.ndarray | None], size: tuple[int, int]) -> torch.Tensor:
    """Video editing: all is known but the box [4] (xyxy, pixels) of each frame after the first. [F, H, W].

    A pixel that a box touches is unknown. A frame without a box is known.
    """
    height, width = size
    known = torch.ones(len(boxes), height, width)
    for frame, box in enumerate(boxes):
        if frame and box is not None:
            left, top = (max(0, int(np.floor(value))) for value in box[:2])
            right, bottom = (max(0, int(np.ceil(value))) for value in box[2:])
            known[frame, top:bottom, left:right] = 0
    return known


def to_latent(known_FHW: torch.Tensor, factor: int) -> torch.Tensor:
    """Known pixels → known latents [4, T, h, w], as Wan's four time-folded channels.

    In space the *unknown* is max-pooled by the VAE's ``factor``: a latent that the edited region touches is unknown.
    In time nothing is pooled: channel c of latent i is frame 4i-3+c, and the first frame fills all four of latent 0.
    """
    return fold(pool_known(known_FHW, factor))


def pool_known(known_FHW: torch.Tensor, factor: int) -> torch.Tensor:
    """Known pixels → known cells of the latent grid, frame by frame: [F, h, w]."""
    height, width = known_FHW.shape[1:]
    if height % factor or width % factor:
        raise ValueError(f"{height}x{width} pixels are not a multiple of {factor}")
    return 1 - F.max_pool2d(1 - known_FHW[:, None], factor)[:, 0]


def fold(known_Fhw: torch.Tensor) -> torch.Tensor:
    """Frames [F, h, w] → the four channels of their latents [4, T, h, w]."""
    steps = latent_frames(len(known_Fhw))
    folded = torch.cat([known_Fhw[:1].expand(FRAMES_PER_LATENT, -1, -1), known_Fhw[1:]])
    return folded.unflatten(0, (steps, FRAMES_PER_LATENT)).transpose(0, 1).contiguous()


def lip_weight(lips_FHW: torch.Tensor, factor: int) -> torch.Tensor:
    """Lip coverage of pixels → of latents [T, h, w], in [0, 1], by trilinear interpolation (paper, M_lip).

    In space with the low-pass that a reduction needs; in time at each latent's mean frame (0, then 4i-1.5).
    """
    frames, height, width = lips_FHW.shape
    steps = latent_frames(frames)
    size = height // factor, width // factor
    lips_Fhw = F.interpolate(lips_FHW[:, None], size, mode="bilinear", antialias=True)[:, 0]
    times = (torch.arange(steps) * FRAMES_PER_LATENT - (FRAMES_PER_LATENT - 1) / 2).clamp(min=0)
    before = times.floor().long()
    fraction = (times - before)[:, None, None].to(lips_Fhw)
    return torch.lerp(lips_Fhw[before], lips_Fhw[(before + 1).clamp(max=frames - 1)], fraction)
