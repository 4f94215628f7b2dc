"""Corners of an open mouth.

Lips part least at their corners and most in the middle, along a curve. A decoder's flow is smooth in another way: its
widest mouths are slots with square ends, its small round ones triangles. Here both lips go to where that curve has
them, over what is between, or away from it.

Shape letters: H W pixels of the face's box.
"""

import torch
from torch import Tensor

from skyreels_audio.models.inner_mouth import smoothstep

END = 0.15  # of the largest gap between lips, at which a mouth ends
UPPER = 0.35  # share of what is too much that the upper lip goes
FOLLOWS = 2.5, 10.0  # times the way that a lip goes, and pixels, over which skin beyond it follows
EDGE = 2.0  # pixels of what is between lips that an edge takes along
SMALL = 1.5, 4.0  # pixels of the largest gap up to which nothing, and from which all, is done


def round_corners(inside_HW: Tensor, upper: float = UPPER) -> Tensor:
    """Whence each pixel comes, in pixels right and down [2, H, W], of a mouth whose inside this is, 0 to 1.

    ``upper``: share of it that is the upper lip's; 0 leaves that where it is.
    """
    gap_W = inside_HW.sum(0)
    most = float(gap_W.max())
    if most <= SMALL[0]:
        return inside_HW.new_zeros(2, *inside_HW.shape)
    y_H1 = torch.arange(len(inside_HW))[:, None].to(inside_HW) + 0.5
    middle_W = (y_H1 * inside_HW).sum(0) / gap_W.clamp(min=1e-3)
    left, right = _ends(gap_W, END * most)
    x_W = torch.arange(inside_HW.shape[1]).to(inside_HW) + 0.5
    from_middle_W = (2 * (x_W - left) / max(right - left, 1.0) - 1).abs().clamp(max=1)
    share = smoothstep(*SMALL, gap_W.max())
    surplus_W = share * (gap_W - most * (1 - from_middle_W.square()))
    down_HW = torch.zeros_like(inside_HW)
    narrower_W, wider_W = surplus_W.clamp(min=0), surplus_W.clamp(max=0)
    for sign, way_W in ((-1, upper * narrower_W), (1, (1 - UPPER) * narrower_W + wider_W)):  # towards the other lip
        beyond_HW = sign * (y_H1 - middle_W) - (gap_W / 2 - way_W)  # pixels from where the lip's edge will be
        reach_W = FOLLOWS[0] * way_W.abs() + FOLLOWS[1]
        edge_W = EDGE + 2 * (-way_W).clamp(min=0)  # what widens does not fold
        follows_HW = torch.where(
            beyond_HW > 0, smoothstep(1.0, 0.0, beyond_HW / reach_W), smoothstep(-1.0, 0.0, beyond_HW / edge_W)
        )
        down_HW += sign * way_W * follows_HW
    return torch.stack([torch.zeros_like(down_HW), down_HW])


def _ends(gap_W: Tensor, least: float) -> tuple[float, float]:
    """Where a gap first and last is ``least``, between pixels."""
    wide = torch.nonzero(gap_W >= least).flatten().tolist()
    ends = []
    for at, step in ((wide[0], -1), (wide[-1], 1)):
        beside = float(gap_W[at + step]) if 0 <= at + step < len(gap_W) else 0.0
        ends.append(at + 0.5 + step * (float(gap_W[at]) - least) / max(float(gap_W[at]) - beside, 1e-6))
    return ends[0], ends[1]
