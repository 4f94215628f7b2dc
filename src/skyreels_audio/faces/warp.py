"""Resampling a picture through an affine map, from or to a part of it."""

import numpy as np
from PIL import Image


def warp(picture: Image.Image | np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What ``matrix`` [2, 3] (output → picture, continuous pixels) shows of the picture: [H, W, C] of ``size`` (H, W).

    Past its edges the picture (uint8) goes on with its border colour. A strong reduction first shrinks by whole
    factors, against aliasing.
    """
    height, width = size
    extent = np.array(picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix[:, :2].T + matrix[:, 2]
    low, high = np.floor(corners.min(axis=0)).astype(int) - 3, np.ceil(corners.max(axis=0)).astype(int) + 3
    left, top = np.clip(low, 0, extent - 1)
    right, bottom = np.clip(high, [left + 1, top + 1], extent)
    factor = max(1, int(np.sqrt(abs(np.linalg.det(matrix[:, :2])))))
    if isinstance(picture, np.ndarray):  # all of a large one as an image would cost more than the rest
        part = Image.fromarray(picture[top:bottom, left:right])
    else:
        part = picture.crop((left, top, right, bottom))
    region = np.asarray(part.reduce(factor))
    before = np.maximum(0, -(-([left, top] - low) // factor))
    after = np.maximum(0, -(-(high - [right, bottom]) // factor))
    padding = [(before[1], after[1]), (before[0], after[0])] + [(0, 0)] * (region.ndim - 2)
    region = Image.fromarray(np.pad(region, padding, mode="edge"))
    local = matrix.copy()
    local[:, 2] -= [left, top]
    local /= factor
    local[:, 2] += before
    coefficients = tuple(local.ravel().tolist())
    return np.asarray(
        region.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC), np.uint8
    )


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of an affine map [2, 3]."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], axis=1)
