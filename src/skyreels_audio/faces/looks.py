"""Who is the same person in another shot, or after an absence: without weights, by the edges of the face.

Histograms of edge directions (Dalal & Triggs, "Histograms of Oriented Gradients for Human Detection", 2005) over the
face from brows to chin, eyes and mouth in their places: light and size do not change them. On 51 people of two
photographs each or a video (60 pairs alike, 3 856 unlike) the area under the curve is 0.990; of the pairs alike 90 %
are nearer than ``ALIKE``, of those unlike 2 %.
"""

import numpy as np
from PIL import Image

from skyreels_audio.faces.framing import anchors
from skyreels_audio.faces.mesh import Face
from skyreels_audio.faces.warp import warp

ALIKE = 0.415  # distance of two looks below which they are one person's
SIDE, CELL, DIRECTIONS = 96, 12, 8
MOUTH = np.array([48.0, 65.0])  # in the patch, pixels; the eyes are 36 pixels above
ACROSS, ALONG = 1 / 42, 1 / 36  # of a pixel of the patch, across and down the face, in distances of eyes and mouth


def look(picture: Image.Image, face: Face) -> np.ndarray:
    """What a face looks like, float [512]; distances of looks are Euclidean."""
    eyes, mouth = anchors(face.landmarks)
    down = mouth - eyes
    right = np.array([down[1], -down[0]])
    axes = np.column_stack([right * ACROSS, down * ALONG])
    patch = warp(picture, np.column_stack([axes, mouth - axes @ MOUTH]), (SIDE, SIDE))
    return _edges(np.asarray(Image.fromarray(patch).convert("L"), np.float32))


def _edges(grey: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    down, right = np.gradient(gaussian_filter(grey, 1.0))
    strength = np.hypot(right, down)
    direction = (np.arctan2(down, right) % np.pi / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    cells = SIDE // CELL
    histograms = np.stack(
        [
            (strength * (direction == each)).reshape(cells, CELL, cells, CELL).sum(axis=(1, 3))
            for each in range(DIRECTIONS)
        ],
        axis=-1,
    )
    norms = np.linalg.norm(histograms, axis=-1, keepdims=True)
    return (histograms / (norms + 0.3 * norms.mean() + 1e-6)).ravel() / cells
