"""Faces through time: one track per person, gaps where the face cannot be seen."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from skyreels_audio.faces.detect import candidates, iou
from skyreels_audio.faces.landmarks import JAW_LEFT, JAW_RIGHT, NOSE_TIP, as_68
from skyreels_audio.faces.looks import ALIKE, look
from skyreels_audio.faces.mesh import DETECTOR_CONFIDENCE, Face, detect_faces, follow
from skyreels_audio.faces.shots import CutDetector

SAME_PLACE = 0.3  # least overlap (IoU) of one face in neighbouring frames
REDETECT = 12  # frames between two searches for faces that came in
PATIENCE = 25  # frames a face may be lost and still be the same face when it returns to its place
SMOOTHING = 9  # frames of the Savitzky-Golay window, quadratic: no lag, and no shrinking of steady motion

# Limits of a face that can be edited.
MAX_YAW = np.radians(45)
MIN_HEIGHT = 40  # pixels
MIN_SCORE = 0.9
NOSE_REACH = 1.54  # how far the nose's tip is in front of the ears, in half widths of the face


@dataclass(frozen=True)
class Track:
    """One face through a video: ``faces[k]`` in frame k, None where it is not seen; ``cuts``: where shots begin."""

    faces: tuple[Face | None, ...]
    cuts: tuple[int, ...] = ()

    @property
    def frames(self) -> list[int]:
        return [k for k, face in enumerate(self.faces) if face is not None]

    @property
    def seen(self) -> list[Face]:
        return [face for face in self.faces if face is not None]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Maximal [start, stop) stretches of frames in which the face is seen."""
        seen = np.diff([0, *(face is not None for face in self.faces), 0])
        return list(zip(np.flatnonzero(seen == 1).tolist(), np.flatnonzero(seen == -1).tolist(), strict=True))

    @property
    def area(self) -> float:
        """Sum of the face's box over time, in pixels: how much of the video it is."""
        return float(sum(np.prod(face.box_xyxy[2:] - face.box_xyxy[:2]) for face in self.seen))


def shows_only(picture: Image.Image, known: Sequence[Face]) -> bool:
    """Whether the whole picture shows some of these faces, and no other: a fifth of the cost of a search for faces."""
    if not known:
        return False
    _, boxes = candidates(picture, 0, DETECTOR_CONFIDENCE[0])
    places = np.stack([face.box_xyxy for face in known])
    return len(boxes) > 0 and all(iou(box, places).max() >= SAME_PLACE for box in boxes)


class FaceTracker:
    """Finds and follows every face of a video, frame after frame.

    A face is followed by running the mesh network where it was. Pictures are searched, which costs forty times as much
    where there is no face, every ``REDETECT`` frames, after a cut, and while a lost face may still return; but not
    where ``alone(picture, faces)`` knows that there are none but the followed ones. At a cut every track ends: who is
    at the same place in the next shot may be someone else. In the end tracks that look alike are joined to one per
    person.
    """

    def __init__(self, detect: Callable[[np.ndarray], list[Face]] = detect_faces, follow=follow, alone=shows_only):
        self._detect, self._follow, self._alone = detect, follow, alone
        self._tracks: list[list[Face | None]] = []
        self._live: list[int] = []  # tracks of this shot, indices
        self._frame = 0
        self._is_cut = CutDetector()
        self._cuts: list[int] = []
        self._looks: list[list[np.ndarray]] = []  # of each track, now and then

    def update(self, frame: np.ndarray) -> None:
        """Take the next frame (uint8 HWC, RGB)."""
        picture = Image.fromarray(frame)
        if cut := self._is_cut(picture):
            self._cuts.append(self._frame)
        self._live = [index for index in self._live if not cut and any(self._tracks[index][-PATIENCE:])]
        for track in self._tracks:
            track.append(None)
        search = cut or self._frame % REDETECT == 0
        for index in self._live:
            track = self._tracks[index]
            if (last := track[-2]) is not None:
                face = self._follow(picture, last)
                if face.score >= 0.5 and iou(face.box_xyxy, last.box_xyxy[None])[0] >= SAME_PLACE:
                    track[-1] = face
            search |= track[-1] is None
        followed = [face for index in self._live if (face := self._tracks[index][-1]) is not None]
        if search and not self._alone(picture, followed):
            self._admit(self._detect(frame))
        for index in self._live:
            face = self._tracks[index][-1]
            if face is not None and (not self._looks[index] or self._frame % REDETECT == 0) and fault(face) is None:
                self._looks[index].append(look(picture, face))
        self._frame += 1

    def tracks(self) -> list[Track]:
        """All people so far, the one that fills most of the video first."""
        tracks = [Track(tuple(faces), tuple(self._cuts)) for faces in self._tracks]
        return people(tracks, [np.mean(seen, axis=0) if seen else None for seen in self._looks])

    def _admit(self, faces: list[Face]) -> None:
        """Give each found face to the track that waits for it at its place, or begin a new one."""
        for face in faces:
            followed = [f for i in self._live if (f := self._tracks[i][-1]) is not None]
            if any(iou(face.box_xyxy, other.box_xyxy[None])[0] >= SAME_PLACE for other in followed):
                continue
            track = self._waiting(face)
            if track is None:
                track = [*[None] * self._frame, face]
                self._live.append(len(self._tracks))
                self._tracks.append(track)
                self._looks.append([])
            track[-1] = face

    def _waiting(self, face: Face) -> list[Face | None] | None:
        best, overlap = None, SAME_PLACE
        for index in self._live:
            track = self._tracks[index]
            last = next((seen for seen in track[-1 : -PATIENCE - 2 : -1] if seen is not None), None)
            if track[-1] is None and last is not None:
                shared = float(iou(face.box_xyxy, last.box_xyxy[None])[0])
                if shared >= overlap:
                    best, overlap = track, shared
        return best


def people(tracks: Sequence[Track], looks: Sequence[np.ndarray | None]) -> list[Track]:
    """Tracks of one person each: those joined that look alike and are never seen together; the largest first.

    ``looks``: the mean look of each track, None where its face was never seen well.
    """
    persons: list[Track] = []
    known: list[np.ndarray | None] = []  # the mean look of each
    for track, seen in sorted(zip(tracks, looks, strict=True), key=lambda each: -each[0].area):
        distances = [
            float(np.linalg.norm(seen - other)) if seen is not None and other is not None else np.inf for other in known
        ]
        alike = [number for number in np.argsort(distances) if distances[number] < ALIKE]
        nearest = next((number for number in alike if not set(persons[number].frames) & set(track.frames)), None)
        if nearest is None:
            persons.append(track)
            known.append(seen)
            continue
        share = len(track.frames) / (len(track.frames) + len(persons[nearest].frames))
        known[nearest] = (1 - share) * np.asarray(known[nearest]) + share * np.asarray(seen)
        joined = tuple(a or b for a, b in zip(persons[nearest].faces, track.faces, strict=True))
        persons[nearest] = replace(track, faces=joined)
    return sorted(persons, key=lambda person: -person.area)


def track_faces(frames: Iterable[np.ndarray], landmarker: str = "mediapipe") -> list[Track]:
    """Tracks of all people of a video (frames uint8 HWC, RGB), the one that fills most of it first.

    ``landmarker``: "mediapipe" (478 points, offline) or "dwpose" (68 points, extra ``[dwpose]``).
    """
    if landmarker == "mediapipe":
        tracker = FaceTracker()
    elif landmarker == "dwpose":
        from skyreels_audio.faces.dwpose import DWPose

        pose = DWPose()
        tracker = FaceTracker(pose.detect, pose.follow, lambda picture, followed: False)
    else:
        raise ValueError(f"landmarker must be 'mediapipe' or 'dwpose', not {landmarker!r}")
    for frame in frames:
        tracker.update(frame)
    return tracker.tracks()


def choose(tracks: list[Track], which: str | int = "largest") -> Track:
    """The speaker's track: "largest" (over the video), "left" or "right" of the picture, or its index.

    Left and right count among faces that are at least a quarter as large over the video as the largest one.
    Raises ValueError if there is no such face.
    """
    if not tracks:
        raise ValueError("no face was found in the video")
    ranked = sorted(tracks, key=lambda track: -track.area)
    if isinstance(which, int) or which.isdecimal():
        if not 0 <= int(which) < len(ranked):
            raise ValueError(f"face {which} was asked for, but the video has faces 0 to {len(ranked) - 1}")
        return ranked[int(which)]
    if which == "largest":
        return ranked[0]
    if which not in ("left", "right"):
        raise ValueError(f"the face must be largest, left, right or an index, not {which!r}")
    main = [track for track in ranked if track.area >= ranked[0].area / 4]
    middles = [np.median([face.box_xyxy[[0, 2]].mean() for face in track.seen]) for track in main]
    return main[int(np.argmin(middles) if which == "left" else np.argmax(middles))]


def yaw(landmarks: np.ndarray) -> float:
    """How far the head is turned, in radians; positive: its nose points to the right on screen.

    From how far the nose's tip leaves the middle between the ears, in half widths of the face as they appear:
    NOSE_REACH * tan(yaw) (fits the mesh's own depth on photographs with r = 0.99).
    """
    points = as_68(landmarks).astype(np.float64)
    across = points[JAW_RIGHT] - points[JAW_LEFT]
    offset = (points[NOSE_TIP] - (points[JAW_LEFT] + points[JAW_RIGHT]) / 2) @ across / (across @ across) * 2
    return float(np.arctan(offset / NOSE_REACH))


def fault(face: Face) -> str | None:
    """Why this face cannot be edited, or None: "turned away", "too small", "hidden", or "cut off" by the edge."""
    if face.score < MIN_SCORE:
        return "hidden"
    if not face.whole:
        return "cut off"
    if face.height < MIN_HEIGHT:
        return "too small"
    if abs(yaw(face.landmarks)) > MAX_YAW:
        return "turned away"
    return None


def smooth_runs(
    values: list[np.ndarray | None], cuts: Sequence[int] = (), window: int = SMOOTHING
) -> list[np.ndarray | None]:
    """Savitzky-Golay over each unbroken stretch of a series of equal arrays; no lag, gaps stay, ``cuts`` break it."""
    from scipy.signal import savgol_filter

    out: list[np.ndarray | None] = list(values)
    seen = np.array([value is not None for value in values], bool)
    first = seen & ~np.r_[False, seen[:-1]]
    first[list(cuts)] |= seen[list(cuts)]
    last = seen & np.r_[first[1:] | ~seen[1:], True]
    for start, stop in zip(np.flatnonzero(first), np.flatnonzero(last) + 1, strict=True):
        run = np.stack([value for value in values[start:stop] if value is not None])
        length = min(window, len(run) - (len(run) + 1) % 2)
        if length > 2:
            run = np.asarray(savgol_filter(run, length, 2, axis=0))
        out[start:stop] = list(run)
    return out
