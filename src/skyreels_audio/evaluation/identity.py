"""Whether a video still shows the person of its picture."""

from collections.abc import Iterable

import numpy as np

from skyreels_audio.faces import detect_faces
from skyreels_audio.faces.identity import face_embedding, identity_distance


def identity_distances(reference: np.ndarray, frames: Iterable[np.ndarray]) -> np.ndarray:
    """Distance of the face embedding to the picture's, of every frame in which a face is found, in order of frames.

    Below 0.6 dlib calls two faces one person. Empty if the picture has no face. Raises ImportError without ``[eval]``.
    """
    found = detect_faces(reference)
    if not found:
        return np.zeros(0)
    own = face_embedding(reference, found[0])
    seen = ((frame, detect_faces(frame)) for frame in frames)
    return np.array([identity_distance(own, face_embedding(frame, each[0])) for frame, each in seen if each])
