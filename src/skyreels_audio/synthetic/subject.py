"""What the renderer draws, and where its vertices are in each frame.

Shape letters: T frame, V vertex, K action, F triangle.
"""

from dataclasses import dataclass

import numpy as np

from skyreels_audio.synthetic.background import Background


@dataclass(frozen=True, eq=False)
class Subject:
    """All that stays the same over a clip."""

    vertices_V3: np.ndarray
    deltas_KV3: np.ndarray
    head_V: np.ndarray
    surface_V2: np.ndarray  # person: hair and beard fields, metres; photograph: texture coordinates
    place_V2: np.ndarray  # person: in the maps of skin and hair; photograph: texture coordinates when the eyes are shut
    skin: str  # "person" or "photograph": the shader of the skin
    visible_F: np.ndarray  # which triangles are drawn
    view_projection: np.ndarray  # [4, 4]
    pivot: np.ndarray
    uniforms: dict
    background: Background
    look: dict[str, float] | None = None  # uniforms of look.frag
    surroundings: "Surroundings | None" = None  # what of the background moves with the head; else it fills the frame


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A mesh that carries the background picture: N vertices like the subject's own."""

    vertices_N3: np.ndarray
    head_N: np.ndarray
    texture_N2: np.ndarray
    triangles_M3: np.ndarray


def pose(subject: Subject, weights_TK: np.ndarray) -> np.ndarray:
    """Vertices [T, V, 3] of the expressions, before the head turns."""
    used = np.flatnonzero(np.abs(weights_TK).max(0) > 1e-4)
    shift_TV3 = np.tensordot(weights_TK[:, used].astype(np.float32), subject.deltas_KV3[used], 1)
    return subject.vertices_V3 + shift_TV3


def rotation_matrices(rotation_T3: np.ndarray) -> np.ndarray:
    """Yaw about z, then pitch about x, then roll about y: [T, 3, 3]."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(rotation_T3).T, np.sin(rotation_T3).T
    zero, one = np.zeros_like(cy), np.ones_like(cy)
    matrix = lambda *entries: np.stack(entries, -1).reshape(-1, 3, 3)  # noqa: E731
    yaw = matrix(cy, -sy, zero, sy, cy, zero, zero, zero, one)
    pitch = matrix(one, zero, zero, zero, cp, -sp, zero, sp, cp)
    roll = matrix(cr, zero, sr, zero, one, zero, -sr, zero, cr)
    return (yaw @ pitch @ roll).astype(np.float32)


def gaze_vectors(gaze_T2: np.ndarray) -> np.ndarray:
    """Unit vectors [T, 3] the eyes look along; (0, 0) is straight ahead, −y."""
    (ch, cv), (sh, sv) = np.cos(gaze_T2).T, np.sin(gaze_T2).T
    return np.stack([sh * cv, -ch * cv, sv], -1).astype(np.float32)
