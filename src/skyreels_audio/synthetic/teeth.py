"""Real teeth for faces that the rig moves: what smiling people show, laid on the rig's upper arch.

Upper teeth belong to the skull. In frames of one head in one pose they stay where they are, so one picture of them
serves every frame, and the rig's flow stays exact.
"""

from functools import cache, lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from skyreels_audio.faces import detect_faces, lip_aperture
from skyreels_audio.media import read_image
from skyreels_audio.synthetic.mouth import upper_arch
from skyreels_audio.synthetic.photograph import INNER_LOWER, INNER_UPPER
from skyreels_audio.synthetic.rig import Rig

ACROSS, DOWN = 192, 48  # cells of a picture of teeth: between the corners of the lips, and from upper to lower lip
SHOWN = 0.035  # inner-lip gap over face height from which teeth are worth taking
RIM = 0.14  # of the gap, next to either lip, that is left out: lips are not teeth
FULL = 0.6  # least brightness near the lower lip over that of the middle: else it is not teeth that meet the lip
BRIGHT = 0.55, 1.35  # brightness of teeth over that of the brighter half of the face
TINT = 0.33  # power of the skin's hue that its owner's teeth have: 0.18 to 0.40 on three photographs
STORED = 1.6  # of that light which 255 stands for in the file of usual teeth
REACH = 0.026  # half the width of an arch that a wide smile shows, metres on the template
HEIGHT = 0.0095  # of its incisors


@cache
def usual_teeth() -> np.ndarray:
    """Those that everybody has whose own are unknown, alike on both sides: what cannot be known must be learnable.

    Made of webmorph-smiling-030 (Face Research Lab London Set; DeBruine & Jones, 2017; CC BY 4.0).
    """
    with as_file(files("skyreels_audio.synthetic") / "assets" / "teeth.png") as path:
        return read_image(path).astype(np.float32) * (STORED / 255)


@lru_cache(maxsize=1024)
def teeth_of(path: Path) -> np.ndarray | None:
    """Teeth of a smiling photograph [DOWN, ACROSS, 3], as multiples of its light on teeth; None where none show."""
    image = read_image(path)
    face = next(iter(detect_faces(image)), None)
    if face is None or lip_aperture(face.landmarks) < SHOWN:
        return None
    points = face.landmarks[:, :2] - 0.5
    left, right = (float(points[corner, 0]) for corner in (78, 308))
    x = np.linspace(left, right, ACROSS + 2)[1:-1]
    upper, lower = (
        np.interp(x, *(np.array(sorted(map(tuple, points[[78, *line, 308]]))).T)) for line in (INNER_UPPER, INNER_LOWER)
    )
    share = np.linspace(RIM, 1 - RIM, DOWN)[:, None]
    y = upper + share * (lower - upper)
    pixels = image.astype(np.float32) / 255
    seen = np.stack([map_coordinates(pixels[..., c], [y, np.broadcast_to(x, y.shape)], order=1) for c in range(3)], -1)
    middle = seen[:, ACROSS // 3 : -ACROSS // 3]
    edge, centre = middle[-DOWN // 4 :].mean(), middle[DOWN // 3 : -DOWN // 3].mean()
    colour = middle.mean((0, 1))
    seen /= light_on_teeth(image, face.box_xyxy)
    white = colour.min() > 0.55 * colour.max() and BRIGHT[0] < middle.mean() < BRIGHT[1]
    return seen if white and edge > FULL * centre else None


def light_on_teeth(image: np.ndarray, box_xyxy: np.ndarray) -> np.ndarray:
    """Colour [3], 0 to 1, of white in a face's light: the brightness of its brighter half and some of its hue."""
    left, top, right, bottom = np.asarray(box_xyxy).clip(0).astype(int)
    face = image[top:bottom, left:right].reshape(-1, 3) / 255
    colour_3 = face[face.mean(-1) > np.quantile(face.mean(-1), 0.5)].mean(0)
    brightness = colour_3.mean()
    return brightness * (colour_3 / brightness) ** TINT


def place_teeth(pixels_V3: np.ndarray) -> np.ndarray:
    """Where the upper arch is: an affine map [3, 2] of (x, y, 1) in pixels to places in a picture of teeth, -1 to 1.

    ``pixels_V3`` is where the rig's vertices are seen. The map is that of the arch's front, which is all that shows.
    """
    arch = upper_arch()
    template_V3, seen = Rig.load().template_V3[arch], pixels_V3[arch]
    front = (template_V3[:, 1] < np.quantile(template_V3[:, 1], 0.5)) & (np.abs(template_V3[:, 0]) < REACH)
    edge_z = template_V3[np.abs(template_V3[:, 0]) < 0.006, 2].min()
    place = np.stack([template_V3[:, 0] / REACH, 1 - 2 * (template_V3[:, 2] - edge_z) / HEIGHT], -1)[front]
    return np.linalg.lstsq(np.c_[seen[front, :2], np.ones(front.sum())], place, rcond=None)[0]


def places(shape: tuple[int, ...], place_32: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Across and down in a picture of teeth, each [H, W], of the pixels of a frame (``place_teeth``)."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    across, down = np.moveaxis(np.stack([x, y, np.ones_like(x)], -1) @ place_32, -1, 0)
    return across, down


def upper_teeth(teeth_THW: np.ndarray, place_32: np.ndarray) -> np.ndarray:
    """Where frames that show teeth show those of the upper arch [T, H, W]."""
    across, down = places(teeth_THW.shape[1:], place_32)
    return teeth_THW & (np.abs(across) < 1) & (down < 1.08)


def lay_teeth(
    frames_THWC: np.ndarray, inside_THW: np.ndarray, place_32: np.ndarray, picture: np.ndarray, light_3: np.ndarray
) -> np.ndarray:
    """Frames (uint8) in which a picture of teeth stands where they show upper teeth (``upper_teeth``)."""
    across, down = places(frames_THWC.shape[1:3], place_32)
    at = [(0.5 + 0.5 * down.clip(-1, 1)) * (DOWN - 1), (0.5 + 0.5 * across.clip(-1, 1)) * (ACROSS - 1)]
    laid = light_3 * np.stack([map_coordinates(picture[..., c], at, order=1, mode="nearest") for c in range(3)], -1)
    alpha = np.minimum(inside_THW, 1.3 * gaussian_filter(inside_THW.astype(np.float32), (0, 0.7, 0.7)))[..., None]
    mixed = frames_THWC * (1 - alpha) + alpha * 255 * laid.clip(0, 1)
    return np.round(mixed).astype(np.uint8)
