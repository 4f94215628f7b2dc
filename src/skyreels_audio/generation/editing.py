"""Lip sync of an existing video: its speaker's face is cropped and held still, the crop edited, and pasted back.

The file is read three times (track, crop, paste), so that memory holds single frames of it. Crops lie in a temporary
file. ``edit_plan`` says which frames are edited, and where.

Legend: F frame of the edited stretch, H W pixels of the crop.
"""

import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyreels_audio.faces.align import feather, paste
from skyreels_audio.faces.warp import warp
from skyreels_audio.generation.codes import speak_as_wide
from skyreels_audio.generation.compositing import Aligned, edit_mouth
from skyreels_audio.generation.edit_plan import Plan
from skyreels_audio.generation.inputs import Progress
from skyreels_audio.generation.masks import editing_known
from skyreels_audio.media import StoredFrame, VideoInfo, read_stored

CRF = 1  # of the output: what is not edited keeps 48 dB of PSNR, in shaky films, too; files are several times theirs
SEAM = 0.06  # width of the seam's feather, in heights of the crop
RING = 0.08  # width of the ring around the edited region in which colours are compared, in heights of the crop
THREADS = 8  # frames that are edited at a time, at most
HELD_BYTES = 256 << 20  # of frames kept for reading backwards


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


def on_disc(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """An array mapped from a nameless temporary file. Raises OSError if the disc is full, before it is written to."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  (the array keeps it)
    if hasattr(os, "posix_fallocate"):  # else a disc that fills up later ends the process with a signal
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.memmap(file, dtype, "w+", shape=shape)


def cut(plan: Plan, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What the model is given: the crops uint8 [F, H, W, 3] and what is known of them, bool [F, H, W].

    Unknown is the lower face's box. Both arrays are mapped from nameless temporary files: a long video need not fit
    into memory, and however the run ends, nothing of it stays.
    """
    count = len(plan.places)
    crops_FHWC = on_disc((count, *plan.size, 3), np.uint8)
    known_FHW = on_disc((count, *plan.size), np.bool_)
    frames = frames_at(plan.path, plan.info, plan.order[plan.start : plan.start + count])
    for index, (frame, place, box) in enumerate(zip(frames, plan.places, plan.boxes, strict=True)):
        crops_FHWC[index] = warp(frame.rgb(), place, plan.size)
        known_FHW[index] = ~inside(box if index else None, plan.size)
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
        mask = feather(~known_FHW[index], SEAM * plan.size[0]) * strengths[number]
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


def in_threads(
    edited: Callable[[int, StoredFrame], StoredFrame], frames: Iterable[tuple[int, StoredFrame]]
) -> Iterator[StoredFrame]:
    """Numbered frames, edited, in order: one a thread, in as many threads as torch may use, ``THREADS`` at most."""
    count = min(torch.get_num_threads(), THREADS)
    waiting: deque[Future[StoredFrame]] = deque()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for number, frame in frames:
            waiting.append(pool.submit(edited, number, frame))
            if len(waiting) == 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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
    plan = plan.with_reference()
    crops_FHWC, known_FHW = cut(plan, progress)
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
    codes_FN = speak_as_wide(codes_FN, plan.aperture)
    codes_FN[0] = codes_FN[1]  # the first is that of a picture which is still itself
    strengths = plan.strengths

    def edited(number: int, frame: StoredFrame) -> StoredFrame:
        index = number - plan.start
        if plan.faults[number] is not None:
            return frame
        shown = frame.rgb()
        aligned = Aligned(shown, plan.places[index], plan.size, landmarks=plan.landmarks[index])
        return frame.repainted(edit_mouth(aligned, codes_FN[index], pipe.vae, float(strengths[number])), shown)

    def frames() -> Iterator[StoredFrame]:
        source = enumerate(frames_at(plan.path, plan.info, plan.order))
        for number, frame in enumerate(in_threads(edited, source)):
            yield frame
            if progress is not None and plan.faults[number] is None:
                progress("decode", number + 1, len(plan.order))

    return EditedVideo(frames(), len(plan.order), plan)
