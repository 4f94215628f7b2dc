"""How alike two faces are as persons: dlib's face recognition network (extra ``[eval]``)."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from skyreels_audio.faces.landmarks import as_68
from skyreels_audio.faces.mesh import Face

# dlib's five points, of our 68: outer and inner corner of the eye right on screen, of the left one, base of the nose.
FIVE = 45, 42, 36, 39, 33


def face_embedding(image: np.ndarray, face: Face) -> np.ndarray:
    """Identity of a face in a picture (uint8 HWC, RGB): float32 [128]. Raises ImportError without extra ``[eval]``."""
    dlib, network = _recogniser()
    points = as_68(face.landmarks)[list(FIVE)]
    shape = dlib.full_object_detection(
        dlib.rectangle(*(int(value) for value in face.box_xyxy)),
        dlib.points([dlib.point(int(round(x)), int(round(y))) for x, y in points.tolist()]),
    )
    chip = dlib.get_face_chip(np.ascontiguousarray(image), shape, size=150, padding=0.25)
    return np.array(network.compute_face_descriptor(chip), np.float32)


def identity_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Euclidean distance of two embeddings; dlib calls two faces one person below 0.6."""
    return float(np.linalg.norm(a - b))


@cache
def _recogniser() -> tuple[Any, Any]:
    models = find_spec("face_recognition_models")  # found, not imported: its import needs the retired pkg_resources
    if find_spec("dlib") is None or models is None or not models.submodule_search_locations:
        raise ImportError("face identity needs dlib and its networks: pip install '.[eval]'")
    dlib: Any = import_module("dlib")
    weights = Path(models.submodule_search_locations[0]) / "models" / "dlib_face_recognition_resnet_model_v1.dat"
    return dlib, dlib.face_recognition_model_v1(str(weights))
