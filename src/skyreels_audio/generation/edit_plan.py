"""Which frames of a video get another mouth, and where: the speaker is tracked and a still crop placed around the face.

Everything is numbered by *output* frame; ``Plan.order`` says which source frame each of them shows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from skyreels_audio.faces import Face, lip_aperture
from skyreels_audio.faces.align import crop_boxes, placements
from skyreels_audio.faces.track import Track, choose, fault, track_faces
from skyreels_audio.generation.inputs import Progress
from skyreels_audio.media import SAMPLE_RATE, InputError, VideoInfo, probe_video, read_stored

Extend = Literal["ping-pong", "hold", "trim"]

SHORTEST = 5  # frames; a mouth that is edited for less than that would flash
WIDE = 0.95  # quantile of a speaker's apertures
FADE = 3  # frames over which an edit comes and goes beside frames that keep their source
COMPLETE = 0.95  # the share of the recorded frames that must be there; with less the file is truncated


@dataclass(frozen=True, eq=False)
class Plan:
    """Which frames of a video are edited, and where.

    Attributes:
        path, info: the video.
        order: source frame of each output frame.
        faults: of each output frame, why it keeps its source; None where it is edited.
        start: first output frame of the stretch that goes through the model.
        places: crop → source, an affine map [2, 3], of each frame of the stretch (between faces, what lies between).
        boxes: the lower face in the crop, xyxy, of each frame of the stretch, or None.
        landmarks: of the face in each frame of the stretch, in pixels of the source, or None.
        size: of the crop, (H, W).
        aperture: how wide the speaker opens the mouth: what the lips are apart, over the face's height, in the
            one frame of twenty in which they are furthest.
        speakers: how many people were found; ``speaker`` is the chosen one's box (xyxy, source) in frame ``start``.
        shots: of the source frames that were looked at: first and last frame, and the box of the chosen one where it is
            first seen in the shot, None where it is not.
    """

    path: Path
    info: VideoInfo
    order: list[int]
    faults: list[str | None]
    start: int
    places: list[np.ndarray]
    boxes: list[np.ndarray | None]
    landmarks: list[np.ndarray | None]
    size: tuple[int, int]
    aperture: float
    speakers: int
    speaker: list[float]
    shots: list[dict[str, Any]]

    @property
    def untouched(self) -> list[dict[str, Any]]:
        """Stretches of output frames that keep their source: first, last, reason."""
        spans, first = [], 0
        for reason, group in groupby(self.faults):
            count = len(list(group))
            if reason is not None:
                spans.append({"first": first, "last": first + count - 1, "reason": reason})
            first += count
        return spans

    @property
    def changes(self) -> list[str]:
        """What is done to the video besides the edit, as phrases."""
        shown = len(set(self.order))
        if len(self.order) > shown:
            length = [f"frames shown again, as the voice is longer: {len(self.order) - shown}"]
        else:
            length = [f"cut after {shown} frames, with the voice"] if shown < self.info.frames else []
        return [*self.info.changes, *length]

    @property
    def strengths(self) -> np.ndarray:
        """How far each output frame is edited, 0 to 1: edits come and go within ``FADE`` frames."""
        from scipy.ndimage import distance_transform_edt

        edited = np.array([reason is None for reason in self.faults])
        if edited.all():
            return np.ones(len(edited))
        away = np.asarray(distance_transform_edt(edited))  # frames to the next untouched one
        return np.minimum(away / (FADE + 1), 1.0)

    def with_reference(self) -> "Plan":
        """The same for a model that makes pixels: the first frame shows it the speaker, and keeps its source."""
        faults = [*self.faults]
        faults[self.start] = "reference frame"
        return replace(self, faults=faults)

    def waveform(self, waveform_n: np.ndarray) -> np.ndarray:
        """The part of the voice (16 kHz) that belongs to the stretch."""
        first, count = (int(frames * SAMPLE_RATE / self.info.fps) for frames in (self.start, len(self.places)))
        return waveform_n[first : first + count]


def plan_edit(
    path: Path,
    seconds: float,
    size: tuple[int, int],
    face: str | int = "largest",
    extend: Extend = "ping-pong",
    landmarker: str = "mediapipe",
    progress: Progress | None = None,
) -> Plan:
    """Track the faces of a video and plan the edit of one of them, to a voice of so many seconds.

    The output lasts as long as the voice. A longer video ends with it; a shorter one is played back and forth
    ("ping-pong"), or holds its last frame ("hold"), or cuts the voice ("trim").

    Args:
        size: of the crop (H, W), the model's.
        face: "largest", "left", "right" or a number, see :func:`faces.choose`.
        landmarker: "mediapipe" or "dwpose", see :func:`faces.track_faces`.

    Raises:
        InputError: the video cannot be read, or no face in it can be edited.
    """
    if extend not in get_args(Extend):
        raise InputError(f"extend must be one of {', '.join(get_args(Extend))}, not {extend!r}.")
    info = probe_video(path)
    wanted = max(1, int(np.ceil(seconds * info.fps - 1e-6)))
    if wanted < SHORTEST:
        least = SHORTEST / info.fps
        raise InputError(f"The voice lasts {seconds:.2f} s, but an edit of {path} needs at least {least:.2f} s.")
    tracks, available = track_people(info, path, wanted, landmarker, progress)
    try:
        track = choose(tracks, face)
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from None
    order = source_order(available, wanted, extend)
    faults = without_short_runs([fault_of(track, tracks, index) for index in order])
    edited = [index for index, reason in enumerate(faults) if reason is None]
    if not edited:
        reasons = {reason for reason in faults if reason}
        raise InputError(f"{path}: the face cannot be edited in any frame ({', '.join(sorted(reasons))}).")
    start, stop = edited[0], edited[-1] + 1
    places, boxes = crops_of(track, {order[index] for index in edited}, size, float(info.aspect))
    first = track.faces[order[start]]
    assert first is not None
    return Plan(
        path=path,
        info=info,
        order=order,
        faults=faults,
        start=start,
        places=[places[index] for index in order[start:stop]],
        boxes=[boxes[index] for index in order[start:stop]],
        landmarks=[_stored(track.faces[index], float(info.aspect)) for index in order[start:stop]],
        size=size,
        aperture=float(np.quantile([lip_aperture(seen.landmarks) for seen in track.faces if seen is not None], WIDE)),
        speakers=len(tracks),
        speaker=[round(float(value), 1) for value in first.box_xyxy],
        shots=shots_of(track, available),
    )


def track_people(
    info: VideoInfo, path: Path, wanted: int, landmarker: str, progress: Progress | None
) -> tuple[list[Track], int]:
    """Tracks of the people in the first ``wanted`` frames, in square pixels, and how many frames there are of those.

    Raises:
        InputError: there are fewer than the file says.
    """
    expected = min(wanted, max(info.frames, 1))
    available = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal available
        for frame in islice(read_stored(path, info.fps), wanted):
            image = frame.rgb()
            if info.aspect != 1:
                size = round(image.shape[1] * info.aspect), image.shape[0]
                image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
            yield image
            available += 1
            if progress is not None:
                progress("track", available, max(expected, available))

    tracks = track_faces(counted(), landmarker)
    if available < min(wanted, COMPLETE * info.frames) and info.whole:
        held, recorded = available / info.fps, info.duration
        raise InputError(f"{path} is truncated: it holds {held:.2f} s of {recorded:.2f} s of picture.")
    return tracks, available


def crops_of(
    track: Track, used: set[int], size: tuple[int, int], aspect: float
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Placement and lower face of the crop in every source frame, those of ``used`` frames alone being looked at.

    ``aspect``: of the source's pixels; the track's are square.
    """
    track = replace(track, faces=tuple(seen if index in used else None for index, seen in enumerate(track.faces)))
    places = placements(track, size)
    to_stored = np.array([[1 / aspect], [1.0]])
    return [place * to_stored for place in without_gaps(places)], crop_boxes(track, places)


def _stored(face: Face | None, aspect: float) -> np.ndarray | None:
    """A face's landmarks in the source's pixels, whose ``aspect`` need not be square as the track's are."""
    return None if face is None else face.landmarks[:, :2] * [1 / aspect, 1.0]


def shots_of(track: Track, frames: int) -> list[dict[str, Any]]:
    """See ``Plan.shots``."""
    bounds = [0, *track.cuts, frames]
    shots = []
    for first, stop in pairwise(bounds):
        face = next((face for face in track.faces[first:stop] if face is not None), None)
        box = None if face is None else [round(float(value), 1) for value in face.box_xyxy]
        shots.append({"first": first, "last": stop - 1, "followed": box})
    return shots


def source_order(available: int, wanted: int, extend: Extend) -> list[int]:
    """Which of ``available`` source frames each of ``wanted`` output frames shows."""
    if extend == "trim":
        return list(range(min(available, wanted)))
    if extend == "hold":
        return [min(index, available - 1) for index in range(wanted)]
    period = max(2 * (available - 1), 1)
    return [min(index % period, period - index % period) if available > 1 else 0 for index in range(wanted)]


def fault_of(track: Track, tracks: Sequence[Track], index: int) -> str | None:
    """Why the face of a track cannot be edited in a source frame, or None."""
    face = track.faces[index]
    if face is None:
        return "another face" if any(other.faces[index] for other in tracks) else "no face"
    return fault(face)


def without_short_runs(faults: Sequence[str | None]) -> list[str | None]:
    """Frames whose edit would be over within ``SHORTEST`` frames keep their source."""
    result: list[str | None] = []
    for reason, group in groupby(faults):
        count = len(list(group))
        result += ["seen too briefly" if reason is None and count < SHORTEST else reason] * count
    return result


def without_gaps(places: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Where there is no placement, what lies between its neighbours in time."""
    known = [index for index, place in enumerate(places) if place is not None]
    values = np.stack([place.ravel() for place in places if place is not None])
    filled = [np.interp(range(len(places)), known, column) for column in values.T]
    return list(np.stack(filled, axis=1).reshape(-1, 2, 3))
