"""Whether a video still shows the person of its picture."""

from collections.abc import Iterable, Sequence

import numpy as np

from skyreels_audio.faces import detect_faces
from skyreels_audio.faces.identity import face_embedding, identity_distance


def identities(frames: Iterable[np.ndarray]) -> list[np.ndarray | None]:
    """Embedding of the largest face of each frame, None without one. Raises ImportError without ``[eval]``."""
    found = ((frame, detect_faces(frame)) for frame in frames)
    return [face_embedding(frame, faces[0]) if faces else None for frame, faces in found]


def distances(reference: np.ndarray | None, others: Sequence[np.ndarray | None]) -> np.ndarray:
    """Distance of embeddings to that of the reference, of those that there are; empty without a reference.

    Below 0.6 dlib calls two faces one person.
    """
    if reference is None:
        return np.zeros(0)
    return np.array([identity_distance(reference, other) for other in others if other is not None])


def identity_distances(picture: np.ndarray, frames: Iterable[np.ndarray]) -> np.ndarray:
    """:func:`distances` of the faces in frames to that of a picture. Raises ImportError without ``[eval]``."""
    return distances(identities([picture])[0], identities(frames))
