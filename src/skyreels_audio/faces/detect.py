"""Where faces may be: MediaPipe's two BlazeFace detectors, over the whole picture and over tiles for small faces.

Anchors, box coding and thresholds are those of MediaPipe's ``face_detection_{short,full}_range.pbtxt``.
Source: Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image

from skyreels_audio.faces.litert import network

EYES = slice(0, 2)  # of the six keypoints: the eyes, in order of x on an upright face


@dataclass(frozen=True)
class _Detector:
    name: str
    side: int  # pixels of the square input
    grids: tuple[tuple[int, int], ...]  # (cells per side, anchors per cell), coarse layers last

    def anchors(self) -> np.ndarray:
        """Anchor centres [N, 2] in units of the input's side: the centre of every cell, once per anchor."""
        layers = []
        for cells, per_cell in self.grids:
            centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
            xy = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
            layers.append(np.repeat(xy, per_cell, axis=0))
        return np.concatenate(layers)


# Strides 8, 16, 16, 16 with two anchors each (layers of equal stride interleave), and stride 4 with one.
_SHORT_RANGE = _Detector("face_detection_short_range", 128, ((16, 2), (8, 6)))
_FULL_RANGE = _Detector("face_detection_full_range_sparse", 192, ((48, 1),))


def candidates(image: Image.Image, level: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints [N, 6, 2] and boxes [N, 4] (xyxy, pixels) of possible faces, most confident first.

    Level 0 looks at the whole picture with both detectors; level n at half-overlapping square tiles of 1/2**n of the
    longer side with the full-range one, so that faces 2**n times smaller are found.
    """
    detectors = (_SHORT_RANGE, _FULL_RANGE) if level == 0 else (_FULL_RANGE,)
    found = [_detect(image, detector, tile, threshold) for tile in _tiles(image.size, level) for detector in detectors]
    scores, boxes, keypoints = (np.concatenate(parts) for parts in zip(*found, strict=True))
    scores, boxes, keypoints = _weighted_nms(scores, boxes, keypoints)
    return keypoints, boxes


def _tiles(size: tuple[int, int], level: int) -> Iterator[tuple[float, float, float]]:
    """(left, top, side) of the square tiles of one level; the whole picture is centred in its one tile."""
    width, height = size
    side = max(width, height) / 2**level
    if level == 0:
        yield (width - side) / 2, (height - side) / 2, side
        return
    starts = []
    for extent in (width, height):
        count = 1 + max(0, int(np.ceil((extent - side) / (side / 2))))
        starts.append(np.linspace(0, extent - side, count) if count > 1 else [(extent - side) / 2])
    yield from ((left, top, side) for top, left in product(starts[1], starts[0]))


def _detect(
    image: Image.Image, detector: _Detector, tile: tuple[float, float, float], threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [N], boxes [N, 4] and keypoints [N, 6, 2] in one tile, in pixels of the picture."""
    left, top, side = tile
    pixels = letterbox(image, tile, detector.side)
    coded, logits = network(detector.name)(pixels / 127.5 - 1)
    scores = 1 / (1 + np.exp(-np.clip(logits[0, :, 0], -80, 80)))
    keep = scores > threshold
    points = coded[0, keep].reshape(-1, 8, 2) / detector.side  # centre, size, six keypoints
    centres = detector.anchors()[keep]
    points[:, 0] += centres
    points[:, 2:] += centres[:, None]
    points = points * side
    origin = np.array([left, top])
    boxes = np.concatenate([points[:, 0] - points[:, 1] / 2 + origin, points[:, 0] + points[:, 1] / 2 + origin], axis=1)
    return scores[keep], boxes, points[:, 2:] + origin


def letterbox(image: Image.Image, tile: tuple[float, float, float], side: int) -> np.ndarray:
    """Resample a square tile (which may reach past the picture, where it is black) to float32 [side, side, 3]."""
    left, top, extent = tile
    box = max(left, 0), max(top, 0), min(left + extent, image.width), min(top + extent, image.height)
    scale = side / extent
    size = max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale))
    canvas = np.zeros((side, side, 3), np.float32)
    x, y = round((box[0] - left) * scale), round((box[1] - top) * scale)
    part = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0))
    canvas[y : y + size[1], x : x + size[0]] = part[: side - y, : side - x]
    return canvas


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box [4] with boxes [N, 4] (xyxy)."""
    overlap = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None).prod(axis=1)
    area, areas = (box[2:] - box[:2]).prod(), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return overlap / np.maximum(area + areas - overlap, 1e-9)


def _weighted_nms(scores: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray, overlap: float = 0.3):
    """Non-maximum suppression where the survivors are score-weighted means of what they suppress (BlazeFace §4)."""
    order = np.argsort(-scores)
    kept = []
    while len(order):
        same = iou(boxes[order[0]], boxes[order]) > overlap
        same[0] = True
        group = order[same]
        weights = scores[group] / scores[group].sum()
        kept.append(
            (scores[order[0]], np.tensordot(weights, boxes[group], 1), np.tensordot(weights, keypoints[group], 1))
        )
        order = order[~same]
    if not kept:
        return scores, boxes, keypoints
    return tuple(np.stack(parts) for parts in zip(*kept, strict=True))
