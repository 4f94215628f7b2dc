"""A moving face held still: crop it out of a video as training frames it, and paste an edited crop back.

A placement is an affine map [2, 3], crop → source, continuous pixels. Rotation, scale and position follow the parts of
the face that speech does not move, and are smoothed over time; the lips keep all of their motion.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from skyreels_audio.faces.framing import EYES_TO_MOUTH, MOUTH_CENTRE, anchors
from skyreels_audio.faces.landmarks import as_68, lower_face_box
from skyreels_audio.faces.track import Track, smooth_runs
from skyreels_audio.faces.warp import invert, warp

RIGID = [27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45]  # of the 68 points: nose, corners of the eyes


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, scale and shift [2, 3] that takes points [N, 2] to others. Umeyama, 1991."""
    a, b = (points @ [1, 1j] for points in (source, target))
    centre_a, centre_b = a.mean(), b.mean()
    turn = np.vdot(a - centre_a, b - centre_b) / np.vdot(a - centre_a, a - centre_a)
    shift = centre_b - turn * centre_a
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def placements(track: Track, size: tuple[int, int]) -> list[np.ndarray | None]:
    """For every frame of a track the placement of a crop of ``size`` (H, W), or None where there is no face.

    Eyes and mouth have on average the distance and the place of training, the eyes level.
    """
    landmarks = [None if face is None else face.landmarks for face in track.faces]
    rigid = [None if points is None else as_68(points)[RIGID].astype(np.float64) for points in landmarks]
    seen = [points for points in rigid if points is not None]
    if not seen:
        return [None] * len(landmarks)
    shape = _mean_shape(seen)
    to_shape = [None if points is None else similarity(points, shape) for points in rigid]
    eyes, mouth = np.mean(
        [
            anchors(_apply(matrix, as_68(points)))
            for matrix, points in zip(to_shape, landmarks, strict=True)
            if matrix is not None and points is not None
        ],
        axis=0,
    )
    scale = float(np.linalg.norm(mouth - eyes)) / (EYES_TO_MOUTH * size[0])  # shape units per pixel of the crop
    middle = mouth + (0.5 - np.array(MOUTH_CENTRE)) * [size[1] * scale, size[0] * scale]
    crop_to_shape = np.array([[scale, 0, middle[0] - scale * size[1] / 2], [0, scale, middle[1] - scale * size[0] / 2]])
    maps = [None if matrix is None else _compose(invert(matrix), crop_to_shape) for matrix in to_shape]

    # Smoothed as turn and centre: a shift measured at a far corner would couple the two.
    centre = np.array([size[1] / 2, size[0] / 2])
    motion = [None if m is None else np.concatenate([m[:, 0], m[:, :2] @ centre + m[:, 2]]) for m in maps]
    return [None if values is None else _from_motion(values, centre) for values in smooth_runs(motion, track.cuts)]


def placement(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The placement of a crop of ``size`` (H, W) around the face of a still: eyes and mouth exactly as in training."""
    height, width = size
    mouth = np.array(MOUTH_CENTRE) * [width, height]
    return similarity(np.array([mouth - [0, EYES_TO_MOUTH * height], mouth]), np.array(anchors(landmarks), np.float64))


def crop_boxes(track: Track, places: list[np.ndarray | None]) -> list[np.ndarray | None]:
    """The lower face in every crop, steadied over time: float [4], xyxy, pixels of the crop, or None."""
    return smooth_runs(
        [
            None if face is None or place is None else lower_face_box(_apply(invert(place), as_68(face.landmarks)))
            for face, place in zip(track.faces, places, strict=True)
        ],
        track.cuts,
    )


def crop(
    frames: Iterable[np.ndarray], places: Iterable[np.ndarray | None], size: tuple[int, int]
) -> Iterator[np.ndarray | None]:
    """The crop (uint8 [H, W, 3]) of each frame that has a placement, None of the others."""
    for frame, place in zip(frames, places, strict=True):
        yield None if place is None else warp(frame, place, size)


def feather(region: np.ndarray, width: float) -> np.ndarray:
    """Soften a region (bool or float [H, W]) inwards: 1 deep inside, 0 at its border and outside of it."""
    from scipy.ndimage import gaussian_filter

    depth = gaussian_filter(np.asarray(region, np.float32), width / 2, mode="constant")
    return np.clip(2 * depth - 1, 0, 1)


def paste(frame: np.ndarray, edited: np.ndarray, place: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Put an edited crop (uint8 [H, W, 3]) back into its frame where ``mask`` (float [H, W], 0 to 1) says.

    Pixels of the frame under a zero mask are returned exactly as they came.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return frame.copy()
    x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    corners = _apply(place, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64))
    limit = np.array([frame.shape[1], frame.shape[0]])
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, limit)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, limit)
    if right <= left or bottom <= top:
        return frame.copy()
    back = invert(place)
    back[:, 2] += back[:, :2] @ [left, top]
    size = bottom - top, right - left
    patch = warp(edited, back, size).astype(np.float32)
    alpha = warp(np.round(mask * 255).astype(np.uint8), back, size)[..., None] / np.float32(255)
    out = frame.copy()
    source = frame[top:bottom, left:right]
    out[top:bottom, left:right] = np.round(source + alpha * (patch - source)).astype(np.uint8)
    return out


def _mean_shape(shapes: list[np.ndarray]) -> np.ndarray:
    """Mean of shapes after each is laid onto the first, at their mean size, with its eyes level."""
    mean = np.mean([_apply(similarity(points, shapes[0]), points) for points in shapes], axis=0)
    mean -= mean.mean(axis=0)
    size = np.mean([np.linalg.norm(points - points.mean(axis=0)) for points in shapes])
    x, y = mean[[9, 10]].mean(axis=0) - mean[[7, 8]].mean(axis=0)
    level = np.array([[x, y], [-y, x]]) / np.hypot(x, y)
    return mean @ level.T * size / np.linalg.norm(mean)


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The affine map that first does ``inner``, then ``outer``."""
    linear = outer[:, :2] @ inner[:, :2]
    return np.concatenate([linear, (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]], axis=1)


def _from_motion(values: np.ndarray, centre: np.ndarray) -> np.ndarray:
    a, b = values[:2]
    linear = np.array([[a, -b], [b, a]])
    return np.concatenate([linear, (values[2:] - linear @ centre)[:, None]], axis=1)
