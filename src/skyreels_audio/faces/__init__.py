"""Faces: detection, landmarks, tracking, lower-face box and lip mask, alignment; offline."""

import numpy as np

from skyreels_audio.faces.framing import portrait_crop
from skyreels_audio.faces.landmarks import (
    LIPS_INNER,
    LIPS_OUTER,
    as_68,
    face_box,
    lip_aperture,
    lip_mask,
    lower_face_box,
)
from skyreels_audio.faces.mesh import Face, detect_faces
from skyreels_audio.faces.track import FaceTracker, Track, choose, fault, track_faces

__all__ = [
    "LIPS_INNER",
    "LIPS_OUTER",
    "Face",
    "FaceTracker",
    "Track",
    "as_68",
    "choose",
    "detect_faces",
    "face_box",
    "fault",
    "landmarks_68",
    "lip_aperture",
    "lip_mask",
    "lower_face_box",
    "portrait_crop",
    "track_faces",
]


def landmarks_68(face: Face) -> np.ndarray:
    """The 68 iBUG points of a face: float32 [68, 2], pixels."""
    return as_68(face.landmarks)
