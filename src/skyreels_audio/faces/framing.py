"""Where a portrait is cut so that its mouth stands where the mouths of training stand."""

import numpy as np

from skyreels_audio.faces.landmarks import as_68
from skyreels_audio.faces.mesh import Face

FACE_HEIGHT = 0.58  # usual height of the face's box over the frame's height
FACE_CENTRE = 0.5, 0.55  # usual centre of the face's box in the frame (x, y)
EYES_TO_MOUTH = 0.22  # distance from between the eyes to the mouth, over the frame's height
MOUTH_CENTRE = 0.5, 0.6875  # centre of the mouth in the frame (x, y)
FACE_BOX = 0.25, 0.34375, 0.75, 0.96875  # brows to chin: what a face that moves can change (left, top, right, bottom)


def anchors(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that framing goes by, pixels: between the eyes, and between the corners of the mouth."""
    points = as_68(landmarks)
    return points[36:48].mean(0), points[[48, 54]].mean(0)


def portrait_crop(image: np.ndarray, face: Face | None, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom; pixels) of ``image`` (HWC) to resize to ``size`` (H, W).

    Mouth and eyes get the place and distance of training. The crop never leaves the picture: near an edge the face is
    off centre, in a close-up it is larger. Without a face it is the largest centred box of that shape.
    """
    height, width = image.shape[:2]
    aspect = size[1] / size[0]
    largest = min(height, width / aspect)
    if face is None:
        crop_height, centre = largest, np.array([width, height]) / 2
    else:
        eyes, mouth = anchors(face.landmarks)
        crop_height = min(float(np.linalg.norm(mouth - eyes)) / EYES_TO_MOUTH, largest)
        up = np.round(face.roll / (np.pi / 2)) * np.pi / 2  # by quarters: the crop itself stays level
        turn = np.array([[np.cos(up), -np.sin(up)], [np.sin(up), np.cos(up)]])
        centre = mouth + turn @ ((0.5 - np.array(MOUTH_CENTRE)) * [crop_height * aspect, crop_height])
    extent = np.array([crop_height * aspect, crop_height])
    left, top = np.clip(centre - extent / 2, 0, np.array([width, height]) - extent)
    return float(left), float(top), float(left + extent[0]), float(top + extent[1])
