"""Lip sync of an existing video: its speaker's face is cropped and held still, the crop edited, and pasted back.

The file is read three times (track, crop, paste), so that memory holds single frames of it. Crops lie in a temporary
file. Everything is numbered by *output* frame; ``Plan.order`` says which source frame each of them shows.

Legend: F frame of the edited stretch, H W pixels of the crop.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from skyreels_audio.faces.align import crop_boxes, feather, paste, placements
from skyreels_audio.faces.framing import region_mask
from skyreels_audio.faces.track import Track, choose, fault, track_faces
from skyreels_audio.faces.warp import warp
from skyreels_audio.generation.compositing import Aligned, edit_mouth
from skyreels_audio.generation.masks import editing_known
from skyreels_audio.media import SAMPLE_RATE, InputError, StoredFrame, VideoInfo, probe_video, read_stored

Extend = Literal["ping-pong", "hold", "trim"]
Progress = Callable[[str, int, int], None]

CRF = 12  # of the output: pixels that are not edited keep 46 dB of PSNR, at twice the source's size
SHORTEST = 5  # frames; a mouth that is edited for less than that would flash
FADE = 3  # frames over which an edit comes and goes beside frames that keep their source
SEAM = 0.06  # width of the seam's feather, in heights of the crop
RING = 0.08  # width of the ring around the edited region in which colours are compared, in heights of the crop
COMPLETE = 0.95  # the share of the recorded frames that must be there; with less the file is truncated
HELD_BYTES = 256 << 20  # of frames kept for reading backwards


@dataclass(frozen=True, eq=False)
class Plan:
    """Which frames of a video are edited, and where.

    Attributes:
        path, info: the video.
        order: source frame of each output frame.
        faults: of each output frame, why it keeps its source; None where it is edited.
        start: first output frame of the stretch that goes through the model. It is the reference, and keeps its source.
        places: crop → source, an affine map [2, 3], of each frame of the stretch (between faces, what lies between).
        boxes: the lower face in the crop, xyxy, of each frame of the stretch, or None.
        size: of the crop, (H, W).
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
    size: tuple[int, int]
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
            length = [f"{len(self.order) - shown} frames are shown again: the voice is longer"]
        else:
            length = [f"cut after {shown} frames, with the voice"] if shown < self.info.frames else []
        return [*self.info.changes, *length]

    @property
    def strengths(self) -> np.ndarray:
        """How far each output frame is edited, 0 to 1: edits come and go within ``FADE`` frames."""
        from scipy.ndimage import distance_transform_edt

        edited = np.array([reason is None for reason in self.faults])
        away = np.asarray(
            distance_transform_edt(edited)
        )  # frames to the next untouched one: there is one, the reference
        return np.minimum(away / (FADE + 1), 1.0)

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
    if available < min(wanted, COMPLETE * info.frames) and info.whole:
        held, recorded = available / info.fps, info.duration
        raise InputError(f"{path} is truncated: it holds {held:.2f} s of {recorded:.2f} s of picture.")
    try:
        track = choose(tracks, face)
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from None
    order = source_order(available, wanted, extend)
    faults = [fault_of(track, tracks, index) for index in order]
    faults = without_short_runs(faults)
    edited = [index for index, reason in enumerate(faults) if reason is None]
    if not edited:
        reasons = {reason for reason in faults if reason}
        raise InputError(f"{path}: the face cannot be edited in any frame ({', '.join(sorted(reasons))}).")
    start, stop = edited[0], edited[-1] + 1
    used = {order[index] for index in edited}
    shots = shots_of(track, available)
    track = replace(track, faces=tuple(seen if index in used else None for index, seen in enumerate(track.faces)))
    source_places = placements(track, size)
    source_boxes = crop_boxes(track, source_places)
    to_stored = np.array([[1 / float(info.aspect)], [1.0]])  # from square pixels
    bridged = [place * to_stored for place in without_gaps(source_places)]
    first = track.faces[order[start]]
    assert first is not None
    faults[start] = "reference frame"
    return Plan(
        path=path,
        info=info,
        order=order,
        faults=faults,
        start=start,
        places=[bridged[index] for index in order[start:stop]],
        boxes=[source_boxes[index] for index in order[start:stop]],
        size=size,
        speakers=len(tracks),
        speaker=[round(float(value), 1) for value in first.box_xyxy],
        shots=shots,
    )


def track_people(
    info: VideoInfo, path: Path, wanted: int, landmarker: str, progress: Progress | None
) -> tuple[list[Track], int]:
    """Tracks of the people in the first ``wanted`` frames, in square pixels, and how many frames there are of those."""
    from PIL import Image

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

    return track_faces(counted(), landmarker), available


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


def frames_at(path: Path, info: VideoInfo, indices: Iterable[int]) -> Iterator[StoredFrame]:
    """The frames of a video by their numbers, in any order; ``HELD_BYTES`` of them are in memory.

    Forward reads on; a step back reads the file from its beginning, once for as many frames as are held.
    """
    block = max(2, HELD_BYTES // (2 * info.width * info.height))
    reader, following = read_stored(path, info.fps), 0
    held: dict[int, StoredFrame] = {}
    for index in indices:
        if index not in held:
            first = index
            if index < following:
                reader, following, first = read_stored(path, info.fps), 0, index + 1 - block
            held = {}
            for frame in reader:
                if following >= first:
                    held[following] = frame
                following += 1
                if following > index:
                    break
        yield held[index]


def cut(
    plan: Plan, region_HW: np.ndarray | None = None, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What the model is given: the crops uint8 [F, H, W, 3] and what is known of them, bool [F, H, W].

    Unknown is the lower face's box, or ``region_HW`` (True inside) for models that learned one place for every mouth.
    Both arrays are mapped from nameless temporary files: a long video need not fit into memory, and however the run
    ends, nothing of it stays.
    """
    count = len(plan.places)
    crops_FHWC = np.memmap(tempfile.TemporaryFile(), np.uint8, "w+", shape=(count, *plan.size, 3))  # noqa: SIM115
    known_FHW = np.memmap(tempfile.TemporaryFile(), np.bool_, "w+", shape=(count, *plan.size))  # noqa: SIM115
    frames = frames_at(plan.path, plan.info, plan.order[plan.start : plan.start + count])
    for index, (frame, place, box) in enumerate(zip(frames, plan.places, plan.boxes, strict=True)):
        crops_FHWC[index] = warp(_picture(frame.rgb()), place, plan.size)
        if region_HW is None or box is None or not index:
            known_FHW[index] = ~inside(box if index else None, plan.size)
        else:
            known_FHW[index] = ~region_HW
        if progress is not None:
            progress("crop", index + 1, count)
    return crops_FHWC, known_FHW


def put_back(
    plan: Plan, crops_FHWC: np.ndarray, known_FHW: np.ndarray, edited: Iterable[np.ndarray]
) -> Iterator[StoredFrame]:
    """The output: frames of the source, in each that is edited the region that is not known pasted from ``edited``."""
    strengths = plan.strengths
    results = iter(edited)
    for number, frame in enumerate(frames_at(plan.path, plan.info, plan.order)):
        index = number - plan.start
        result = next(results) if 0 <= index < len(plan.places) else None
        if result is None or plan.faults[number] is not None:
            yield frame
            continue
        result = with_colours_of(crops_FHWC[index], result, ~known_FHW[index])
        region = inside(plan.boxes[index], plan.size) & ~known_FHW[index]
        mask = feather(region, SEAM * plan.size[0]) * strengths[number]
        yield frame.repainted(paste(frame.rgb(), result, plan.places[index], mask))
    next(results, None)  # lets a generator end, and say so


def inside(box: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    """The pixels that a box touches, True inside [H, W]; none without a box."""
    return editing_known([None, box], size)[1].numpy() == 0


def with_colours_of(source: np.ndarray, edited: np.ndarray, region: np.ndarray) -> np.ndarray:
    """``edited`` (uint8 [H, W, 3]) with the mean colour that ``source`` has in a ring around the edited region."""
    from scipy.ndimage import binary_dilation

    ring = binary_dilation(region, iterations=max(1, round(RING * len(region)))) & ~region
    if not ring.any():
        return edited
    shift = (source[ring].astype(np.float32) - edited[ring]).mean(axis=0)
    return np.clip(np.round(edited + shift), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class EditedVideo:
    """An edited video: ``frames`` yields ``num_frames`` frames of ``width`` × ``height``, once, as they are decoded."""

    frames: Iterator[StoredFrame]
    num_frames: int
    plan: Plan

    @property
    def fps(self) -> float:
        return self.plan.info.fps


def edit_video(
    pipe: Any, plan: Plan, waveform_n: np.ndarray, progress: Progress | None = None, **options: Any
) -> EditedVideo:
    """Edit a video by its plan to a voice (mono, 16 kHz). ``options`` are the pipeline's.

    Raises ValueError where the pipeline does.
    """
    if pipe.moves_pixels:
        return _edit_by_motion(pipe, plan, waveform_n, progress, **options)
    region_HW = None if pipe.settings().edit_region == "everything" else region_mask("mouth", plan.size)
    crops_FHWC, known_FHW = cut(plan, region_HW, progress)
    output = pipe(
        audio=plan.waveform(waveform_n),
        video=crops_FHWC,
        known=known_FHW,
        height=plan.size[0],
        width=plan.size[1],
        fps=plan.info.fps,
        colour_strength=0.0,  # colours follow the source frame by frame, see with_colours_of
        progress=progress,
        **options,
    )
    assert output.num_frames == len(plan.places), (output.num_frames, len(plan.places))
    return EditedVideo(put_back(plan, crops_FHWC, known_FHW, output.frames), len(plan.order), plan)


def _edit_by_motion(
    pipe: Any, plan: Plan, waveform_n: np.ndarray, progress: Progress | None, **options: Any
) -> EditedVideo:
    """Each edited frame gets another mouth out of its own pixels."""
    settings = pipe.settings(options.pop("settings", None), fps=plan.info.fps)
    codes_FN = pipe.generate_motion(plan.waveform(waveform_n), settings=settings, progress=progress, **options)

    def frames() -> Iterator[StoredFrame]:
        strengths = plan.strengths
        for number, frame in enumerate(frames_at(plan.path, plan.info, plan.order)):
            index = number - plan.start
            if plan.faults[number] is not None:
                yield frame
                continue
            aligned = Aligned.at(frame.rgb(), plan.places[index], plan.size)
            yield frame.repainted(edit_mouth(aligned, codes_FN[index], pipe.vae, float(strengths[number])))
            if progress is not None:
                progress("decode", number + 1, len(plan.order))

    return EditedVideo(frames(), len(plan.order), plan)


def _picture(image: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(image)
