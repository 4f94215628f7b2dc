"""How a face moves, told from its landmarks: lips, jaw line, eyelids, head.

Landmarks are the 68 iBUG points in pixels. Shape letters: F frame.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from skyreels_audio import faces
from skyreels_audio.faces.align import RIGID, similarity
from skyreels_audio.faces.landmarks import HEIGHT_PER_NOSE, NOSE_BASE, NOSE_ROOT

LIPS, JAW_LINE = slice(48, 68), slice(2, 15)
EYES = (36, 42)  # first of the six points of each eye
BILABIALS = frozenset("pbm")
CLOSED = 0.006  # lips this near (over the face's height) touch; of rendered true clips 100 % of p b m, chance 0.35
BLINK = 0.6  # of the usual opening of the eyes; below it they are shut
LONGEST_BLINK = 0.5  # seconds; what is longer is a closed eye
REACH = 0.04  # seconds before and after a phoneme in which its lips may meet: mouths lead and trail the sound


def track_landmarks(frames: Iterable[np.ndarray]) -> np.ndarray:
    """The 68 points of the largest face in every frame (uint8 HWC): float32 [F, 68, 2]; gaps are interpolated.

    Raises ValueError if no frame shows a face.
    """
    tracks = faces.track_faces(frames)
    if not tracks:
        raise ValueError("no face in the video")
    return interpolated(tracks[0])


def interpolated(track: faces.Track) -> np.ndarray:
    """A track as float32 [F, 68, 2], its gaps filled in from their neighbours."""
    known = track.frames
    seen = np.stack([faces.landmarks_68(face) for face in track.seen]).reshape(len(known), -1)
    every = np.arange(len(track.faces))
    return np.stack([np.interp(every, known, values) for values in seen.T], 1).reshape(-1, 68, 2).astype(np.float32)


def heights(points_F682: np.ndarray) -> np.ndarray:
    """Height of the face in pixels [F], from the length of its nose (:func:`faces.landmarks.face_height`)."""
    return HEIGHT_PER_NOSE * np.linalg.norm(points_F682[:, NOSE_ROOT] - points_F682[:, NOSE_BASE], axis=-1)


def aperture(points_F682: np.ndarray) -> np.ndarray:
    """Mean gap of the inner lips over the face's height [F] (:func:`faces.lip_aperture` of every frame)."""
    gaps = np.linalg.norm(points_F682[:, [61, 62, 63]] - points_F682[:, [67, 66, 65]], axis=-1).mean(1)
    return (gaps / heights(points_F682)).astype(np.float32)


def amplitude_ratio(curve_F: np.ndarray, true_F: np.ndarray) -> float:
    """How far a curve swings over how far the true one does: ratio of standard deviations; nan if that is still."""
    return float(np.std(curve_F) / np.std(true_F)) if np.std(true_F) > 0 else float("nan")


@dataclass(frozen=True)
class Closures:
    """How often the lips meet on p, b and m."""

    share: float  # of the phonemes
    chance: float  # the same at random times: what a mouth that is mostly shut gets for nothing
    count: int  # phonemes


def closures(
    aperture_F: np.ndarray, phonemes: Sequence[tuple[float, float, str]], fps: float = 25.0
) -> Closures | None:
    """Whether the aperture falls below ``CLOSED`` in each p, b and m (start, end in seconds, IPA); None without any.

    Chance is the share of all windows of the same lengths in which it does.
    """
    spans = [(start, end) for start, end, ipa in phonemes if ipa[:1] in BILABIALS and end * fps <= len(aperture_F)]
    if not spans:
        return None
    met, chance = [], []
    for start, end in spans:
        first, last = int(np.floor((start - REACH) * fps)), int(np.ceil((end + REACH) * fps))
        lowest = np.lib.stride_tricks.sliding_window_view(aperture_F, min(last - first, len(aperture_F))).min(1)
        met.append(lowest[min(max(first, 0), len(lowest) - 1)] < CLOSED)
        chance.append(float((lowest < CLOSED).mean()))
    return Closures(float(np.mean(met)), float(np.mean(chance)), len(spans))


def eye_opening(points_F682: np.ndarray) -> np.ndarray:
    """Height of the eyes over their width, mean of both [F]. Soukupova & Cech, 2016."""
    ratios = []
    for first in EYES:
        outer, up1, up2, inner, low2, low1 = (points_F682[:, first + k] for k in range(6))
        high = np.linalg.norm(up1 - low1, axis=-1) + np.linalg.norm(up2 - low2, axis=-1)
        ratios.append(high / (2 * np.linalg.norm(outer - inner, axis=-1)))
    return np.mean(ratios, 0)


def blink_rate(points_F682: np.ndarray, fps: float = 25.0) -> float:
    """Blinks per minute: stretches of at most ``LONGEST_BLINK`` in which the eyes are below ``BLINK`` of usual."""
    opening_F = eye_opening(points_F682)
    shut = np.diff([0, *(opening_F < BLINK * np.median(opening_F)), 0])
    lengths = np.flatnonzero(shut == -1) - np.flatnonzero(shut == 1)
    return float((lengths <= LONGEST_BLINK * fps).sum() * 60 * fps / len(points_F682))


def head_motion(points_F682: np.ndarray, fps: float = 25.0) -> float:
    """Mean speed of nose and eye corners in face heights per second, after landmark noise is smoothed away."""
    from scipy.signal import savgol_filter

    if len(points_F682) < 2:
        return 0.0
    rigid_F2 = points_F682[:, RIGID].mean(1) / np.median(heights(points_F682))
    window = min(9, len(rigid_F2) - (len(rigid_F2) + 1) % 2)
    if window > 2:
        rigid_F2 = np.asarray(savgol_filter(rigid_F2, window, 2, axis=0))
    return float(np.linalg.norm(np.diff(rigid_F2, axis=0), axis=1).mean() * fps)


def lip_distance(points_F682: np.ndarray, true_F682: np.ndarray) -> float:
    """Mean distance of the lips' landmarks to the true clip's, heads laid onto one another, in face heights."""
    return _distance(points_F682, true_F682, LIPS)


def jaw_line_distance(points_F682: np.ndarray, source_F682: np.ndarray) -> float:
    """The same of the jaw line, against the video that was edited: how far the edit moved the chin's contour."""
    return _distance(points_F682, source_F682, JAW_LINE)


def _distance(points_F682: np.ndarray, true_F682: np.ndarray, part: slice) -> float:
    """Frame by frame; the head's turn, size and place, fitted by what speech does not move, do not count."""
    count = min(len(points_F682), len(true_F682))
    found = []
    for points, true in zip(points_F682[:count], true_F682[:count], strict=True):
        place = similarity(points[RIGID].astype(np.float64), true[RIGID].astype(np.float64))
        laid = points[part] @ place[:, :2].T + place[:, 2]
        found.append(np.linalg.norm(laid - true[part], axis=1).mean())
    return float(np.mean(np.array(found) / heights(true_F682[:count])))
