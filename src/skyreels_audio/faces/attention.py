"""MediaPipe's attention mesh: 478 landmarks with precise lips and eyes, of a face-aligned square picture.

A trunk gives a mesh and a feature map; lips and eyes are cut out of the feature map, each by its own rotated
rectangle, and three heads place their points again. Cropping was a custom operation of the published network: here it
is NumPy, and the network is two files (``tools/cut_face_mesh.py``).
Source: Grishchenko et al., "Attention Mesh: High-fidelity Face Mesh Prediction in Real-time", 2020.
"""

from dataclasses import dataclass

import numpy as np

from skyreels_audio.faces.litert import network

SIDE = 192  # pixels of the square input; the feature map has a quarter of it
PATCH = 16  # cells per side of a region cut out of the feature map
MARGIN = 1.5  # side of that region over the extent of its points
HEAD_UNITS = 64  # a head's coordinates run from 0 to this over its region
_CELLS = (np.stack(np.meshgrid(*2 * [np.arange(PATCH)]), axis=-1).reshape(-1, 2) + 0.5) / PATCH  # of the unit square


@dataclass(frozen=True)
class _Region:
    """Mesh points that one head places again, in its order, and the two that become level."""

    points: tuple[int, ...]
    left: int
    right: int


# fmt: off
_LIPS = _Region((
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
    76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73, 72, 11, 302, 303, 304, 408,
    62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407,
), 61, 291)
_LEFT_EYE = _Region((
    33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173, 130, 25, 110, 24, 23, 22, 26, 112, 243,
    247, 30, 29, 27, 28, 56, 190, 226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189,
    35, 124, 46, 53, 52, 65, 143, 111, 117, 118, 119, 120, 121, 128, 245, 156, 70, 63, 105, 66, 107, 55, 193,
), 33, 133)
_RIGHT_EYE = _Region((
    263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398,
    359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414,
    446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442, 441, 413,
    265, 353, 276, 283, 282, 295, 372, 340, 346, 347, 348, 349, 350, 357, 465,
    383, 300, 293, 334, 296, 336, 285, 417,
), 362, 263)
# fmt: on
_REGIONS = _LIPS, _LEFT_EYE, _RIGHT_EYE
_EYE_CONTOUR = 16  # the first points of an eye's region; their mean depth is the iris's


def mesh_478(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Landmarks float32 [478, 3] in pixels of the picture (uint8 [SIDE, SIDE, 3]), and presence in [0, 1]."""
    mesh, features, logit = network("face_mesh_trunk")(pixels / np.float32(255))
    landmarks = np.concatenate([mesh.reshape(468, 3), np.zeros((10, 3), np.float32)])
    frames = [_frame(landmarks, region) for region in _REGIONS]
    patches = [_sample(features[0], frame * features.shape[1] / SIDE) for frame in frames]
    lips, left, right, left_iris, right_iris = (
        out.reshape(-1, 2) / HEAD_UNITS for out in network("face_mesh_heads")(*patches)
    )
    for region, frame, local in zip(_REGIONS, frames, (lips, left, right), strict=True):
        landmarks[list(region.points), :2] = _place(local, frame)
    for region, frame, local, first in (
        (_LEFT_EYE, frames[1], left_iris, 468),
        (_RIGHT_EYE, frames[2], right_iris, 473),
    ):
        landmarks[first : first + 5, :2] = _place(local, frame)
        landmarks[first : first + 5, 2] = landmarks[list(region.points[:_EYE_CONTOUR]), 2].mean()
    return landmarks, float(1 / (1 + np.exp(-logit.item())))


def _frame(landmarks: np.ndarray, region: _Region) -> np.ndarray:
    """The region's rectangle as an affine map [2, 3]: unit square → pixels."""
    x, y = landmarks[region.right, :2] - landmarks[region.left, :2]
    axes = np.array([[x, -y], [y, x]]) / np.hypot(x, y)
    upright = landmarks[list(region.points), :2] @ axes
    low, high = upright.min(axis=0), upright.max(axis=0)
    edges = axes * (high - low) * MARGIN
    corner = axes @ ((low + high) / 2) - edges.sum(axis=1) / 2
    return np.concatenate([edges, corner[:, None]], axis=1)


def _place(local: np.ndarray, frame: np.ndarray) -> np.ndarray:
    return local @ frame[:, :2].T + frame[:, 2]


def _sample(features: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """[PATCH, PATCH, C]: the feature map [H, W, C] under ``frame``, bilinear, zero where its centres end."""
    xy = _place(_CELLS, frame) - 0.5
    last = np.array([features.shape[1] - 1, features.shape[0] - 1])
    inside = np.all((xy >= 0) & (xy <= last), axis=1)
    x0, y0 = np.clip(np.floor(xy), 0, last - 1).astype(int).T
    fx, fy = (xy - np.stack([x0, y0], axis=1)).T[..., None]
    cells, first = features.reshape(-1, features.shape[2]), y0 * features.shape[1] + x0
    below = first + features.shape[1]
    upper = cells[first] * (1 - fx) + cells[first + 1] * fx
    lower = cells[below] * (1 - fx) + cells[below + 1] * fx
    patch = (upper * (1 - fy) + lower * fy) * inside[:, None]
    return patch.reshape(PATCH, PATCH, -1)
