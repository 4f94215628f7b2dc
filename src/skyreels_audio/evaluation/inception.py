"""Inception-v3 as the original FID computes it: TensorFlow's network of 2015-12-05, pooling quirks included.

Names follow the converted weights ``weights-inception-2015-12-05-6726825d.pth`` (github.com/toshas/torch-fidelity; the
same as pytorch-fid's). Szegedy et al., 2016; Heusel et al., 2017.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299
Step = tuple[tuple[str, int, tuple[int, int]], ...]  # convolutions side by side: name, width, kernel
Pool = Literal["average", "max", "reduce"]


def _chain(name: str, *convolutions: tuple[int, int | tuple[int, int]], start: int = 1) -> list[Step]:
    """name_1, name_2, … of so many channels and kernel."""
    pairs = [(width, (k, k) if isinstance(k, int) else k) for width, k in convolutions]
    return [((f"{name}_{number}", width, kernel),) for number, (width, kernel) in enumerate(pairs, start)]


def _block_a(pool: int) -> tuple[list[list[Step]], Pool, int]:
    branches = [[(("branch1x1", 64, (1, 1)),)], _chain("branch5x5", (48, 1), (64, 5))]
    return [*branches, _chain("branch3x3dbl", (64, 1), (96, 3), (96, 3))], "average", pool


def _block_c(width: int) -> tuple[list[list[Step]], Pool, int]:
    flat, tall = (1, 7), (7, 1)
    single = _chain("branch7x7", (width, 1), (width, flat), (192, tall))
    double = _chain("branch7x7dbl", (width, 1), (width, tall), (width, flat), (width, tall), (192, flat))
    return [[(("branch1x1", 192, (1, 1)),)], single, double], "average", 192


def _block_e(pool: Pool) -> tuple[list[list[Step]], Pool, int]:
    def split(name: str) -> Step:
        return (f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))

    single = [*_chain("branch3x3", (384, 1)), split("branch3x3_2")]
    double = [*_chain("branch3x3dbl", (448, 1), (384, 3)), split("branch3x3dbl_3")]
    return [[(("branch1x1", 320, (1, 1)),)], single, double], pool, 192


_BLOCKS: dict[str, tuple[list[list[Step]], Pool, int]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": (
        [[(("branch3x3", 384, (3, 3)),)], _chain("branch3x3dbl", (64, 1), (96, 3), (96, 3))], "reduce", 0
    ),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": (
        [
            _chain("branch3x3", (192, 1), (320, 3)),
            _chain("branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)),
        ],
        "reduce",
        0,
    ),
    "Mixed_7b": _block_e("average"),
    "Mixed_7c": _block_e("max"),
}  # fmt: skip


class InceptionV3(nn.Module):
    """Pictures uint8 [N, 3, H, W] of any size → pool features float32 [N, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, (3, 3), 2, 0)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, (3, 3), 1, 0)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, (3, 3), 1, 1)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, (1, 1), 1, 0)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, (3, 3), 1, 0)
        width = 192
        for name, (branches, pool, pool_width) in _BLOCKS.items():
            self.add_module(name, _Block(width, branches, pool, pool_width))
            last = sum(sum(step[1] for step in branch[-1]) for branch in branches)
            width = last + (width if pool == "reduce" else pool_width)
        self.fc = nn.Linear(width, 1008)  # not used: so that the weights' names are all known

    def forward(self, pictures_NCHW: Tensor) -> Tensor:
        x = (_resized(pictures_NCHW.float()) - 128) / 128
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name in _BLOCKS:
            x = getattr(self, name)(x)
        return x.mean((2, 3))


class _Convolution(nn.Module):
    def __init__(self, before: int, after: int, kernel: tuple[int, int], stride: int, padding: int | tuple[int, int]):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Branches side by side, and a pooled one; a reducing block's last convolutions halve the grid."""

    def __init__(self, before: int, branches: list[list[Step]], pool: Pool, pool_width: int) -> None:
        super().__init__()
        self.branches, self.pool = branches, pool
        for branch in branches:
            width = before
            for step in branch:
                halves = pool == "reduce" and step is branch[-1]
                for name, after, (high, wide) in step:
                    padding = 0 if halves else (high // 2, wide // 2)
                    self.add_module(name, _Convolution(width, after, (high, wide), 2 if halves else 1, padding))
                width = sum(each[1] for each in step)
        if pool != "reduce":
            self.branch_pool = _Convolution(before, pool_width, (1, 1), 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = torch.cat([getattr(self, name)(y) for name, _, _ in step], 1)
            outputs.append(y)
        if self.pool == "reduce":
            outputs.append(F.max_pool2d(x, 3, 2))
        elif self.pool == "max":  # in the last block; taken for a slip, but the weights know it
            outputs.append(self.branch_pool(F.max_pool2d(x, 3, 1, 1)))
        else:
            outputs.append(self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)))
        return torch.cat(outputs, 1)


def _resized(x: Tensor) -> Tensor:
    """Bilinear to ``SIDE`` × ``SIDE`` as TensorFlow 1 does it: the corner of a pixel, not its centre, is its place."""
    for axis in (2, 3):
        size = x.shape[axis]
        place = torch.arange(SIDE, dtype=torch.float32) * (size / SIDE)
        low = place.floor().long()
        share = (place - low).view([-1 if dimension == axis else 1 for dimension in range(4)])
        x = x.index_select(axis, low).lerp(x.index_select(axis, (low + 1).clamp(max=size - 1)), share)
    return x
