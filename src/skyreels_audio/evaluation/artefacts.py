"""What a viewer notices that should not be there: blur, squares, seams, flicker, colours that wander, a second jaw.

Videos are uint8 [F, H, W, 3], RGB; landmarks the 68 iBUG points [F, 68, 2] in pixels; levels are 0 … 255.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from skyreels_audio.evaluation.motion import heights
from skyreels_audio.faces import lip_mask

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
MOUTH_SIDE = 96  # pixels to which a mouth is resampled before its detail is measured
MOUTH_EXTENT = 0.42  # side of the square around the lips, in face heights
LEAST_STEP = 0.02  # levels between frames; a smaller step is none
CHIN = 0.04, 0.22  # face heights below the jaw line between which a second one would show


def luma(frames: np.ndarray) -> np.ndarray:
    """float32 [..., H, W]."""
    return frames.astype(np.float32) @ LUMA


def mouth_detail(frames_FHWC: np.ndarray, points_F682: np.ndarray) -> np.ndarray:
    """Detail around the lips [F], in levels: standard deviation of what a Gaussian of one pixel in 96 takes away."""
    from scipy.ndimage import gaussian_filter

    details = []
    for frame, points, height in zip(frames_FHWC, points_F682, heights(points_F682), strict=True):
        half, centre = MOUTH_EXTENT * height / 2, points[48:60].mean(0)
        box = (*(centre - half), *(centre + half))
        size = MOUTH_SIDE, MOUTH_SIDE
        mouth = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC, box=_inside(box, frame))
        grey = luma(np.asarray(mouth))
        details.append(float((grey - gaussian_filter(grey, 1.0)).std()))
    return np.array(details)


def mouth_sharpness(frames: np.ndarray, points: np.ndarray, source: np.ndarray, source_points: np.ndarray) -> float:
    """Detail of a video's mouth over that of its source's (the true clip, or the picture as one frame); 1 is as sharp.

    Medians over frames. Both are measured at one size, so a source of higher resolution counts as it is.
    """
    return float(np.median(mouth_detail(frames, points)) / np.median(mouth_detail(source, source_points)))


def _inside(box: tuple[float, ...], frame: np.ndarray) -> tuple[float, float, float, float]:
    """The box within the picture, at least a pixel large."""
    height, width = frame.shape[:2]
    left, top = min(max(box[0], 0), width - 1), min(max(box[1], 0), height - 1)
    return left, top, max(min(box[2], width), left + 1), max(min(box[3], height), top + 1)


def tile_border_ratio(frames_FHWC: np.ndarray, tile: int, where_HW: np.ndarray | None = None) -> float:
    """Steps across the borders of squares of ``tile`` pixels over steps elsewhere, in the region; 1: none show."""
    grey_FHW = luma(frames_FHWC)
    at, elsewhere = [], []
    for axis in (1, 2):
        steps = np.abs(np.diff(grey_FHW, axis=axis)).mean(0)
        line = np.arange(1, grey_FHW.shape[axis]) % tile == 0
        border = np.broadcast_to(line[:, None] if axis == 1 else line, steps.shape)
        inside = _both(where_HW, axis - 1) if where_HW is not None else np.ones_like(border)
        at.append(steps[border & inside])
        elsewhere.append(steps[~border & inside])
    return float(np.concatenate(at).mean() / max(np.concatenate(elsewhere).mean(), 1e-6))


def seam_step(frames_FHWC: np.ndarray, source_FHWC: np.ndarray, region_HW: np.ndarray) -> float:
    """How much the border of the edited region adds to the source's own step across it: levels; 0 is no seam."""
    added = frames_FHWC.astype(np.float32) - source_FHWC
    steps = []
    for axis in (0, 1):
        border = np.diff(region_HW.astype(np.int8), axis=axis) != 0
        steps.append(np.abs(np.diff(added, axis=axis + 1))[:, border].mean(-1).ravel())
    return float(np.concatenate(steps).mean())


def _both(where_HW: np.ndarray, axis: int) -> np.ndarray:
    """Where a pixel and its successor along the axis are in the region."""
    return where_HW[1:] & where_HW[:-1] if axis == 0 else where_HW[:, 1:] & where_HW[:, :-1]


def flicker(frames_FHWC: np.ndarray, where_HW: np.ndarray | None = None) -> float:
    """Mean difference of frames to the mean of both neighbours in time, levels: motion cancels, flicker does not."""
    grey = luma(frames_FHWC) if where_HW is None else luma(frames_FHWC[:, where_HW])
    if len(grey) < 3:
        return 0.0
    return float(np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean())


def region_colours(frames_FHWC: np.ndarray, where_HW: np.ndarray) -> np.ndarray:
    """Mean CIE L*a*b* of a region in every frame [F, 3]."""
    return np.stack([_mean_lab(frame[where_HW]) for frame in frames_FHWC])


def lip_colours(frames_FHWC: np.ndarray, points_F682: np.ndarray) -> np.ndarray:
    """Mean CIE L*a*b* of the red of the lips, without the mouth between them, in every frame [F, 3]."""
    colours = []
    for frame, points in zip(frames_FHWC, points_F682, strict=True):
        outer = lip_mask(points, frame.shape[:2])
        inner = _polygon(points[60:68], frame.shape[:2])
        red = (outer > 0.99) & ~inner
        colours.append(_mean_lab(frame[red]) if red.any() else np.full(3, np.nan))
    return np.stack(colours)


def colour_drift(colours_F3: np.ndarray, reference_3: np.ndarray) -> float:
    """Mean distance (Delta E, CIE 1976) of colours to the reference's; frames without a colour do not count."""
    return float(np.nanmean(np.linalg.norm(colours_F3 - reference_3, axis=1)))


def _mean_lab(pixels_P3: np.ndarray) -> np.ndarray:
    import torch

    from skyreels_audio.generation.colour import rgb_to_lab

    return rgb_to_lab(torch.from_numpy(np.ascontiguousarray(pixels_P3))).mean(0).numpy()


def _polygon(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import ImageDraw

    canvas = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=1, outline=1)
    return np.asarray(canvas)


def chin_change(frames_FHWC: np.ndarray, source_FHWC: np.ndarray, points_F682: np.ndarray) -> float:
    """How much an edit changed what is below the jaw line: mean absolute difference to the source, levels.

    There is neck, which speech hardly moves; a second chin that an edit left there shows. Landmarks are the source's.
    """
    from scipy.ndimage import map_coordinates

    found = []
    for frame, source, points, height in zip(frames_FHWC, source_FHWC, points_F682, heights(points_F682), strict=True):
        jaw = points[5:12]
        columns = np.linspace(jaw[:, 0].min(), jaw[:, 0].max(), 33)
        order = np.argsort(jaw[:, 0])
        start = np.interp(columns, jaw[order, 0], jaw[order, 1])
        rows = start[:, None] + np.arange(CHIN[0] * height, CHIN[1] * height)
        places = [rows - 0.5, np.broadcast_to(columns[:, None], rows.shape) - 0.5]
        own, true = (map_coordinates(luma(each), places, order=1, mode="nearest") for each in (frame, source))
        found.append(float(np.abs(own - true).mean()))
    return float(np.mean(found))


def codec_round_trip(frames_FHWC: np.ndarray, fps: float, crf: int) -> np.ndarray:
    """The frames written to H.264 as this package writes them and read again."""
    from skyreels_audio import media

    height, width = frames_FHWC.shape[1:3]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "round_trip.mp4"
        with media.VideoWriter(path, width, height, fps, crf=crf) as writer:
            for frame in frames_FHWC:
                writer.write(frame)
        return np.stack(list(media.read_video(path)))


def error_over_codec(
    frames: np.ndarray, source: np.ndarray, outside_HW: np.ndarray, fps: float, crf: int = 16
) -> float:
    """Error outside the edit as a multiple of what the codec alone does to the source: 1 is nothing but the codec.

    Both are mean squared errors against the source as decoded; ``outside_HW`` is true where nothing was edited.
    """
    floor = codec_round_trip(source, fps, crf)
    outside = source[:, outside_HW].astype(np.float32)
    own, least = (np.square(video[:, outside_HW] - outside).mean() for video in (frames, floor))
    return float(own / max(least, 1e-6))


def sharpness(frames_FHWC: np.ndarray) -> float:
    """How much blurring takes away, 0 (nothing: blurred already) to 1; mean over frames. Needs no reference.

    One minus the blur of Crété, Dolmière, Ladret & Nicolas, 2007, the worse of both directions.
    """
    from scipy.ndimage import uniform_filter1d

    found = []
    for frame in frames_FHWC:
        grey = luma(frame)
        blurs = []
        for axis in (0, 1):
            own = np.abs(np.diff(grey, axis=axis))
            after = np.abs(np.diff(uniform_filter1d(grey, 9, axis), axis=axis))
            blurs.append(1 - np.maximum(own - after, 0).sum() / max(own.sum(), 1e-6))
        found.append(1 - max(blurs))
    return float(np.mean(found))


def repeated_frames(frames_FHWC: np.ndarray, where_HW: np.ndarray) -> float:
    """Share of frames that show the same as the one before them in the region, next to what its livelier frames change.

    Dropped frames count, and so do still ones: compare with the ground truth's.
    """
    change = np.abs(np.diff(luma(frames_FHWC[:, where_HW]), axis=0)).mean(1)
    return float((change < 0.05 * np.percentile(change, 90)).mean()) if len(change) else 0.0


def jerks(frames_FHWC: np.ndarray, period: int) -> float:
    """How much larger steps between frames are at one phase of ``period`` than at the others: 1 for even motion.

    Models that make so many frames at once may move from one such group to the next, and not within it. NaN for fewer
    than four periods.
    """
    steps_F = np.abs(np.diff(luma(frames_FHWC[:, ::4, ::4]), axis=0)).mean((1, 2))
    turns = len(steps_F) // period
    if turns < 4:
        return float("nan")
    phases_P = np.sort(np.median(steps_F[: turns * period].reshape(turns, period), axis=0))
    return float(phases_P[-1] / max(phases_P[:-1].mean(), LEAST_STEP))
