"""Faces in a picture: detector → face-aligned crop → mesh of 478 landmarks, in pixels of the picture.

The crop's rule (1.5 times the square around the face, eyes level) and the network are MediaPipe's Face Mesh.
Source: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from skyreels_audio.faces.attention import SIDE, mesh_478
from skyreels_audio.faces.detect import EYES, candidates, iou
from skyreels_audio.faces.landmarks import LIPS_OUTER, as_68
from skyreels_audio.faces.warp import warp

CROP_SCALE = 1.5  # crop side over the longer side of the face's box
# Least confidence of the detector in the whole picture, its halves, its quarters: tiles see many more chances to err.
DETECTOR_CONFIDENCE = 0.5, 0.6, 0.6
SMALLEST = 20  # pixels of height; below it the mesh network sees noise
# How far landmarks may move, in sides of the crop, when the crop changes a little: a face's own move by 0.02 at most,
# those that the network imagines on a face that is upside down by 0.1 and more (13 photographs).
STEADY = 0.03
MOST_OUTSIDE = 0.25  # share of the landmarks: pictures that end at the forehead or an ear are usual


@dataclass(frozen=True)
class Face:
    """One face.

    box_xyxy: float32 [4], pixels: the bounding box of the mesh, from the hairline side of the forehead to the chin.
    score: presence in [0, 1] by the mesh network: is this a face, with its landmarks where they say.
    landmarks: float32 [478, 3], pixels (x right, y down; a pixel's centre is at +0.5), z in the same scale, towards
      the viewer negative. Order of MediaPipe's Face Mesh: 468 of the surface, then five per iris.
    whole: whether the picture shows its lips and most of the rest; the mesh goes on beyond the picture's edge.
    """

    box_xyxy: np.ndarray
    score: float
    landmarks: np.ndarray
    whole: bool = True

    @property
    def height(self) -> float:
        return float(self.box_xyxy[3] - self.box_xyxy[1])

    @property
    def roll(self) -> float:
        """How far the face is turned in the picture, radians, clockwise on screen: 0 is upright, pi on its head."""
        points = as_68(self.landmarks)
        x, y = points[45] - points[36]  # the outer corners of the eyes
        return float(np.arctan2(y, x))


@dataclass(frozen=True)
class Crop:
    """A rotated square of the picture: centre and side in pixels, angle in radians (clockwise on screen)."""

    centre: np.ndarray
    side: float
    angle: float

    @property
    def axes(self) -> np.ndarray:
        """[2, 2]: columns are the crop's unit x and y axes in the picture."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([[c, -s], [s, c]])

    def matrix(self, side: int) -> np.ndarray:
        """[2, 3]: pixels of the crop, resampled to ``side``, → pixels of the picture."""
        axes = self.axes * self.side / side
        return np.concatenate([axes, (self.centre - axes.sum(axis=1) * side / 2)[:, None]], axis=1)

    @classmethod
    def around(cls, points: np.ndarray, eyes: np.ndarray) -> "Crop":
        """The crop around a face, whose eyes [2, 2] (left one on screen first) become level."""
        x, y = eyes[1] - eyes[0]
        low, high = points.min(axis=0), points.max(axis=0)
        return cls((low + high) / 2, float((high - low).max()) * CROP_SCALE, float(np.arctan2(y, x)))


def detect_faces(image: np.ndarray, threshold: float = 0.5) -> list[Face]:
    """Find the faces of a picture (uint8 HWC, RGB), at any roll, largest first; none is an empty list.

    The whole picture is searched first, as it stands and, where that shows no steady face, on its sides and its head;
    then ever smaller tiles until one level has faces.
    """
    for level, confidence in enumerate(DETECTOR_CONFIDENCE):
        found: list[Face] = []
        for quarters in range(4 if level == 0 else 1):
            picture = Image.fromarray(np.ascontiguousarray(np.rot90(image, quarters)))
            faces = _search(picture, level, confidence, threshold)
            steady = any(_unsteadiness(picture, face) < STEADY for face in faces)
            if steady or not found:
                found = [_turned_back(face, quarters, image.shape) for face in faces]
            if steady:
                break
        if found:
            return _distinct(found)
    return []


def _search(picture: Image.Image, level: int, confidence: float, threshold: float) -> list[Face]:
    """A detector's guess counts when the mesh network's presence score reaches ``threshold`` twice: in the detector's
    crop, and in its own."""
    faces = []
    for keypoints, box in zip(*candidates(picture, level, confidence), strict=True):
        rough = mesh(picture, Crop.around(box.reshape(2, 2), keypoints[EYES]))
        face = follow(picture, rough)
        if min(rough.score, face.score) >= threshold and face.height >= SMALLEST:
            faces.append(face)
    return faces


def _unsteadiness(picture: Image.Image, face: Face) -> float:
    """How far the landmarks move when the crop is another one, in sides of the crop."""
    crop = _crop_of(face)
    moved = []
    for scale, aside in ((1.15, 0.08), (0.87, -0.08)):
        centre = crop.centre + aside * crop.side
        other = mesh(picture, Crop(centre, crop.side * scale, crop.angle + aside))
        moved.append(np.linalg.norm(other.landmarks[:, :2] - face.landmarks[:, :2], axis=1).mean() / crop.side)
    return float(max(moved))


def _turned_back(face: Face, quarters: int, shape: tuple[int, ...]) -> Face:
    """A face of the picture turned by quarters (as np.rot90) in the picture itself, of ``shape`` (H, W, …)."""
    x, y = face.landmarks[:, 0], face.landmarks[:, 1]
    height, width = shape[:2]
    xy = [(x, y), (width - y, x), (width - x, height - y), (y, height - x)][quarters]
    landmarks = np.column_stack([*xy, face.landmarks[:, 2]]).astype(np.float32)
    return Face(_box(landmarks), face.score, landmarks, face.whole)


def mesh(picture: Image.Image, crop: Crop) -> Face:
    """Run the mesh network on one crop."""
    local, score = mesh_478(warp(picture, crop.matrix(SIDE), (SIDE, SIDE)))
    local = local / SIDE - [0.5, 0.5, 0]
    xy = crop.centre + local[:, :2] * crop.side @ crop.axes.T
    landmarks = np.concatenate([xy, local[:, 2:] * crop.side], axis=1).astype(np.float32)
    return Face(_box(landmarks), score, landmarks, _is_whole(landmarks, picture.size))


def _is_whole(landmarks: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a picture of ``size`` (W, H) shows the face."""
    outside = ((landmarks[:, :2] < 0) | (landmarks[:, :2] > size)).any(axis=1)
    lips = np.asarray(outside)[list(LIPS_OUTER)]
    return not lips.any() and bool(np.mean(outside) < MOST_OUTSIDE)


def _box(landmarks: np.ndarray) -> np.ndarray:
    return np.concatenate([landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)])


def follow(picture: Image.Image, face: Face) -> Face:
    """Landmarks of ``face`` in a picture that differs little (the next frame, or the same one, to refine)."""
    return mesh(picture, _crop_of(face))


def _crop_of(face: Face) -> Crop:
    xy = face.landmarks[:, :2]
    return Crop.around(xy, xy[[33, 263]])


def _distinct(faces: list[Face]) -> list[Face]:
    """Drop the less certain of two faces in one place; sort by size."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not kept or iou(face.box_xyxy, np.stack([other.box_xyxy for other in kept])).max() < 0.3:
            kept.append(face)
    return sorted(kept, key=lambda face: -face.height)
