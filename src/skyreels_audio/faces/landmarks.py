"""What landmarks mean: lips, lower face, aperture, box. Every function takes either of two layouts.

* [478, 3]: MediaPipe's Face Mesh, dense (468 surface points, five per iris), with depth.
* [68, 2]: the 68 points of iBUG / 300-W (jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, lips 48-67), as DWPose and the
  synthetic renderer give them. "Left" in comments is left on screen.
"""

import numpy as np
from PIL import Image, ImageDraw

MESH_POINTS = 478
# Outer and inner lip contours of the mesh: from the left corner over the upper lip to the right one, back below.
LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
MESH_TO_68 = (
    *(127, 234, 93, 58, 172, 136, 150, 176, 152, 400, 379, 365, 397, 288, 323, 454, 356),  # jaw
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # brows
    *(168, 197, 5, 4, 98, 97, 2, 326, 327),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 40, 37, 0, 267, 270, 291, 321, 405, 17, 181, 91),  # outer lips
    *(78, 81, 13, 311, 308, 402, 14, 178),  # inner lips
)
# Of the 68 points.
JAW_LEFT, CHIN, JAW_RIGHT = 0, 8, 16
NOSE_ROOT, NOSE_TIP, NOSE_BASE = 27, 30, 33
# Height of the mesh's box in lengths of the nose's ridge (root to base): the mean over upright, frontal photographs.
HEIGHT_PER_NOSE = 3.4


def as_68(landmarks: np.ndarray) -> np.ndarray:
    """Either layout as float32 [68, 2], pixels."""
    points = landmarks[list(MESH_TO_68)] if len(landmarks) == MESH_POINTS else landmarks
    assert len(points) == 68, f"landmarks must be 478 or 68 points, not {len(landmarks)}"
    return points[:, :2].astype(np.float32)


def face_box(landmarks: np.ndarray) -> np.ndarray:
    """The box of the face mesh, hairline side of the forehead to chin: float32 [4], xyxy.

    Of 68 points, which end at the brows, the forehead is reached by the length of the nose.
    """
    xy = landmarks[:, :2]
    if len(landmarks) != MESH_POINTS:
        forehead = xy[17:27] + 0.25 * HEIGHT_PER_NOSE * (xy[NOSE_ROOT] - xy[NOSE_BASE])
        xy = np.concatenate([xy, forehead])
    return np.concatenate([xy.min(axis=0), xy.max(axis=0)]).astype(np.float32)


def face_height(landmarks: np.ndarray) -> float:
    """Height of the face in pixels, from its nose: a length that neither the jaw nor turning the head changes."""
    points = as_68(landmarks)
    return HEIGHT_PER_NOSE * float(np.linalg.norm(points[NOSE_ROOT] - points[NOSE_BASE]))


def lip_aperture(landmarks: np.ndarray) -> float:
    """How far the lips are apart: mean inner gap at three places, over the face's height (closed: near 0)."""
    points = as_68(landmarks)
    gaps = np.linalg.norm(points[[61, 62, 63]] - points[[67, 66, 65]], axis=1)
    return float(gaps.mean()) / face_height(landmarks)


def lower_face_box(landmarks: np.ndarray, margin: float = 0.08) -> np.ndarray:
    """The region that speech moves: from the nose's tip to below the chin, cheek to cheek. float32 [4], xyxy.

    ``margin``, in face heights, is left at both sides and (twice: the jaw drops) below the chin.
    """
    points = as_68(landmarks)
    jaw = points[1:16]
    pad = margin * face_height(landmarks)
    left, right, bottom = jaw[:, 0].min() - pad, jaw[:, 0].max() + pad, jaw[:, 1].max() + 2 * pad
    return np.array([left, points[NOSE_TIP, 1], right, bottom], np.float32)


def lip_contours(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outer and inner contour of the lips, points in their order, each [N, 2 or 3]."""
    if len(landmarks) == MESH_POINTS:
        return landmarks[list(LIPS_OUTER)], landmarks[list(LIPS_INNER)]
    return landmarks[48:60], landmarks[60:68]


def lip_mask(landmarks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Lips and the mouth between them, as anti-aliased coverage in [0, 1]: float32 of ``shape`` (H, W)."""
    return coverage(lip_contours(landmarks)[0], shape)


def coverage(contour: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """How much of each pixel lies in a closed contour [N, 2 or 3]: float32 of ``shape`` (H, W), anti-aliased."""
    fine = 4
    canvas = Image.new("L", (shape[1] * fine, shape[0] * fine))
    ImageDraw.Draw(canvas).polygon([(float(x) * fine, float(y) * fine) for x, y in contour[:, :2]], fill=255)
    return np.asarray(canvas.reduce(fine), np.float32) / 255
