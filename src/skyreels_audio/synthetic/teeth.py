"""Teeth: usual ones, drawn; those that photographs of smiles show; and where they stand in frames of the rig.

Upper teeth belong to the skull. In frames of one head in one pose they stay where they are, so one picture of them
serves every frame, and the rig's flow stays exact.
"""

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from skyreels_audio.faces import detect_faces, lip_aperture
from skyreels_audio.media import read_image
from skyreels_audio.models.inner_mouth import ROOM, coarse, draw_inside, face_light, opening, upper_teeth
from skyreels_audio.synthetic.mouth import lower_edge, upper_arch
from skyreels_audio.synthetic.photograph import INNER_LOWER, INNER_UPPER
from skyreels_audio.synthetic.rig import Rig, smoothstep

ACROSS, DOWN = 256, 64  # texels of a picture of teeth: over the front of an arch, and from gum to edge
SHOWN = 0.035  # inner-lip gap over face height from which teeth are worth taking
RIM = 0.14  # of the gap, next to either lip, that is left out: lips are not teeth
FULL = 0.6  # least brightness near the lower lip over that of the middle: else it is not teeth that meet the lip
BRIGHT = 0.55, 1.35  # brightness of teeth over that of white in their light
REACH = 0.026  # half the width of an arch that a wide smile shows, metres on the template
HEIGHT = 0.0095  # of its incisors
ENAMEL, GUM = np.array([0.93, 0.907, 0.856]), np.array([0.60, 0.30, 0.28])  # under white light
# From the middle outwards: half widths of teeth over REACH as they are seen from the front, how far their edges are
# from that of the incisors (half heights), and how round their corners are.
UPPER = (
    (0.285, 0.22, 0.19, 0.135, 0.10, 0.07),
    (0.0, 0.13, 0.03, 0.13, 0.16, 0.2),
    (0.12, 0.17, 0.19, 0.14, 0.12, 0.12),
)


@cache
def usual_teeth() -> np.ndarray:
    """Upper teeth that everybody has whose own are unknown [4, DOWN, ACROSS], edges down: colour, coverage.

    Alike on both sides, since what cannot be known must be learnable.
    """
    widths, edges, round_by = UPPER
    x = np.abs(2 * (np.arange(ACROSS) + 0.5) / ACROSS - 1)
    down = ROOM * (2 * (np.arange(DOWN) + 0.5) / DOWN - 1)[:, None]
    ends = np.cumsum(widths)
    tooth = np.searchsorted(ends, x).clip(max=len(widths) - 1)
    half = np.array(widths)[tooth] / 2
    side = (x - ends[tooth] + half) / half  # -1 to 1 across a tooth
    edge = 1 - np.array(edges)[tooth] - 0.45 * x**2 - np.array(round_by)[tooth] * np.abs(side) ** 4
    neck = -0.92 + 0.1 * (tooth == 1) + 0.34 * side**2  # where the gum begins: between teeth it hangs lower
    between = np.exp(-(((1 - np.abs(side)) * half / 0.02) ** 2)) * smoothstep(0.9, -0.6, -down + 0.2)
    along = smoothstep(neck, edge, down)  # 0 at the gum, 1 at the edge
    enamel = ENAMEL * (0.86 + 0.14 * smoothstep(0, 0.45, along) - 0.07 * smoothstep(0.85, 1.0, along))[..., None]
    enamel = enamel * np.stack([np.ones_like(along), 0.98 + 0.02 * along, 0.93 + 0.07 * along], -1)
    enamel *= (1 - 0.10 * np.abs(side) ** 3 - 0.26 * between)[..., None]
    gum = smoothstep(neck + 0.06, neck - 0.06, down)[..., None]
    colour = enamel + gum * (GUM - enamel)
    colour *= (1 - 0.7 * smoothstep(0.3, 1.0, x))[:, None]
    coverage = smoothstep(edge + 0.04, edge - 0.06, down) * smoothstep(1.0, 0.95, x)
    return np.concatenate([colour, coverage[..., None]], -1).astype(np.float32).transpose(2, 0, 1).copy()


@lru_cache(maxsize=1024)
def teeth_of(path: Path) -> np.ndarray | None:
    """Teeth of a smiling photograph [DOWN, ACROSS, 3], as multiples of white in its light; None where none show."""
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
    left, top, right, bottom = face.box_xyxy.clip(0).astype(int)
    shown = torch.from_numpy(image[top:bottom, left:right].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    seen /= face_light(shown)[0, :3].numpy()
    white = colour.min() > 0.55 * colour.max() and BRIGHT[0] < middle.mean() < BRIGHT[1]
    return seen if white and edge > FULL * centre else None


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


def upper_shown(inside_THW: np.ndarray, place_32: np.ndarray) -> np.ndarray:
    """Where open mouths, shares [T, H, W] of pixels, show upper teeth."""
    across, down = places(inside_THW.shape[1:], place_32)
    place = torch.from_numpy(np.stack([across, down])).float()[None]
    return (inside_THW > 0.5) & (upper_teeth(place, torch.from_numpy(usual_teeth()))[0, 3].numpy() > 0.5)


def gap_of(pixels_V3: np.ndarray, place_32: np.ndarray) -> float:
    """How far the edges of the lower incisors are below those of the upper ones, in half heights of an incisor."""
    seen = pixels_V3[lower_edge()]
    return float((np.c_[seen[:, :2], np.ones(len(seen))] @ place_32)[:, 1].mean() - 1)


def lay_inside(
    frames_THWC: np.ndarray,
    inside_THW: np.ndarray,
    place_32: np.ndarray,
    gap_T: np.ndarray,
    box_xyxy: np.ndarray,
    teeth: np.ndarray,
) -> np.ndarray:
    """Frames (uint8) of one head in one pose, the insides of their mouths drawn as the model draws them.

    ``inside_THW``: shares of pixels; ``box_xyxy``: the face's box, pixels; ``teeth`` as ``usual_teeth``, of their owner
    where known.
    """
    left, top, right, bottom = np.round(box_xyxy).astype(int).clip(0)
    pixels = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2).float() / 127.5 - 1
    inside = torch.from_numpy(inside_THW)[:, None]
    place = torch.from_numpy(np.stack(places(frames_THWC.shape[1:3], place_32))).float()[None]
    gap = torch.from_numpy(gap_T).float()[:, None, None, None].expand_as(inside)
    light = face_light(pixels[:1, :, top:bottom, left:right])
    drawn = draw_inside(
        place.expand(len(pixels), -1, -1, -1), gap, opening(inside), light, coarse(torch.from_numpy(teeth))
    )
    mixed = pixels + inside * (drawn - pixels)
    return ((mixed + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
