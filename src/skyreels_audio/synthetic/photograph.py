"""A photograph made to speak: the rig takes the shape of the face in it, and the photograph becomes its skin.

At rest the picture is the photograph itself, but lips that were apart in it are closed. Expressions move the rig,
whose every vertex carries the pixel it covered; the head's motion also carries hair and, fading, what surrounds it.
The inside of the mouth is the rig's own.

Shape letters: V vertex, L landmark, N vertex of the surroundings; metres on the rig, pixels in the photograph.
"""

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from skyreels_audio.faces import Face, detect_faces, face_box, lip_aperture, portrait_crop
from skyreels_audio.faces.align import placement
from skyreels_audio.faces.framing import MOUTH_CENTRE
from skyreels_audio.faces.warp import invert, warp
from skyreels_audio.media import read_image
from skyreels_audio.synthetic.background import Background, colour_word
from skyreels_audio.synthetic.mouth import seat
from skyreels_audio.synthetic.rig import ACTIONS, NECK_PIVOT, Material, Rig, smoothstep
from skyreels_audio.synthetic.subject import Subject, Surroundings

CLOSED = 0.012  # inner-lip gap over face height; above it teeth may show
OPEN = 0.12  # the widest gap that can be closed
FOLLOWS = {"outer": 0.75, "chin": 0.5}  # how far the rest of the lips, and the chin, go along when the lips close
STRAIGHT = 0.40  # radians of yaw or pitch that the fit follows
CELLS = 32  # cells a side of the mesh that carries what surrounds the face
HELD_OUT = 10  # one person in so many is of the test split
# Facing points of the inner lip lines, corner to corner.
INNER_UPPER = [191, 80, 81, 82, 13, 312, 311, 310, 415]
INNER_LOWER = [95, 88, 178, 87, 14, 317, 402, 318, 324]
OUTER_UPPER = [40, 39, 37, 0, 267, 269, 270]
OUTER_LOWER = [91, 181, 84, 17, 314, 405, 321]
CHIN_LINE = [149, 176, 148, 152, 377, 400, 378]
LEFT_LID, RIGHT_LID = [362, 398, 384, 385, 386, 387, 388, 466, 263], [33, 246, 161, 160, 159, 158, 157, 173, 133]
LEFT_BROW, RIGHT_BROW = [276, 283, 282, 295, 285], [46, 53, 52, 65, 55]  # their lower edges
FOREHEAD, CHIN = 10, 152


def split(name: str) -> str:
    """ "train" or "test" for a file of the portraits folder: by person, the same everywhere.

    Pictures of one person share a number (London set) or, for officials, at least the surname.
    """
    stem = re.sub(r"\.\w+$", "", name)
    if match := re.match(r"webmorph-(?:neutral|smiling)-(\d+)", stem):
        person = f"london-{match[1]}"
    elif stem.startswith("official-"):
        person = "official-" + stem.rsplit("-", 1)[-1]
    else:
        person = stem
    return "test" if hashlib.sha256(person.encode()).digest()[0] % HELD_OUT == 0 else "train"


def suitable(face: Face) -> bool:
    """Whether a face can be made to speak: lips not wide apart, looking towards the camera."""
    turn = Pose.of(Rig.load(), face.landmarks[:468]).rotation
    yaw, pitch = np.arctan2(turn[0, 1], turn[1, 1]), np.arcsin(np.clip(turn[2, 1], -1, 1))
    return lip_aperture(face.landmarks) < CLOSED and max(abs(yaw), abs(pitch)) < STRAIGHT


@dataclass(frozen=True)
class Framing:
    """How much larger than the frame's rule a face stands, and how far off its place (fractions of the frame)."""

    size: float = 1.0
    place: np.ndarray = field(default_factory=lambda: np.zeros(2))


FINE = 512  # side of a photograph that is to be animated


def framed_portrait(path: Path, framing: Framing) -> tuple[np.ndarray, Face | None]:
    """A photograph (uint8 [512, 512, 3]) as `generate` aligns a portrait, and its largest face; None without one."""
    image, face = _portrait(path)
    if face is None or not suitable(face):
        return image, None
    to_picture = placement(face.landmarks, (FINE, FINE))
    middle = FINE * np.array(MOUTH_CENTRE)
    linear, shift = to_picture[:, :2] / framing.size, middle - (middle + FINE * framing.place) / framing.size
    to_picture = np.c_[linear, to_picture @ [*shift, 1.0]]
    points = face.landmarks.astype(np.float64)
    back = invert(to_picture)
    scale = np.sqrt(abs(np.linalg.det(back[:, :2])))
    points = np.c_[points[:, :2] @ back[:, :2].T + back[:, 2], points[:, 2] * scale].astype(np.float32)
    framed = warp(image, to_picture, (FINE, FINE))
    return framed, replace(face, landmarks=points, box_xyxy=face_box(points))


@lru_cache(maxsize=1024)
def _portrait(path: Path) -> tuple[np.ndarray, Face | None]:
    image = read_image(path)
    return image, next(iter(detect_faces(image)), None)


def animate_photograph(
    image: np.ndarray, face: Face, size: tuple[int, int] = (256, 256), framed: bool = False
) -> Subject:
    """The photograph (uint8 [H, W, 3]), cropped around its face to the shape of `size` (H, W), as a subject.

    One that is `framed` already stays as it is.

    Raises ValueError if the mouth is wide open or the head turned away.
    """
    if not suitable(face):
        raise ValueError("This photograph cannot speak: it needs lips nearly closed and a face towards the camera.")
    rig = Rig.load()
    picture, landmarks_L3 = (image, face.landmarks[:468]) if framed else _crop(image, face, size)
    pose = Pose.of(rig, landmarks_L3)
    vertices_V3 = _fit(rig, pose, landmarks_L3)
    pixels_V3 = pose.to_picture(vertices_V3)
    seen_V2 = pixels_V3[:, :2]
    if lip_aperture(face.landmarks) >= CLOSED:
        vertices_V3 = _fit(rig, pose, _closed(landmarks_L3))
        seen_V2 = pose.to_picture(_fit_open(rig, pose, landmarks_L3))[:, :2]
    open_V2 = _show_inner_lips(rig, seen_V2, landmarks_L3)
    around = _surroundings(rig, pose, pixels_V3, landmarks_L3, picture.shape)
    x, y, z = rig.template_V3.T
    front_V = (y < -0.02) & (z > 0.565) & (z < 0.82) & (rig.material_V == Material.SKIN)
    inner = np.isin(rig.material_F, [Material.TEETH, Material.TONGUE, Material.LASHES])
    still_V = smoothstep(0.57, 0.60, z) * smoothstep(0.82, 0.79, z) * smoothstep(-0.02, -0.05, y)
    moved = np.where(front_V, still_V, 1.0).astype(np.float32)
    vertices_V3, deltas_KV3 = seat(vertices_V3, rig.deltas_KV3 * moved[:, None])
    return Subject(
        vertices_V3=vertices_V3,
        deltas_KV3=deltas_KV3,
        head_V=_head_weight(pixels_V3[:, :2], landmarks_L3, picture.shape),
        surface_V2=_texture(open_V2, picture.shape),
        place_V2=_texture(_shut_lids(rig, pose, vertices_V3, open_V2, landmarks_L3), picture.shape),
        skin="photograph",
        visible_F=inner | front_V[rig.triangles_F3].all(1),
        view_projection=pose.view_projection(picture.shape),
        pivot=NECK_PIVOT,
        uniforms=_mouth_light(picture, landmarks_L3),
        background=Background(picture, "photographic", colour_word(_border(picture))),
        surroundings=around,
    )


@dataclass(frozen=True)
class Pose:
    """Weak perspective: a rig's point p in pixels (x right, depth away, −y) is scale · rotation · p + shift."""

    scale: float
    rotation: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, rig: Rig, landmarks_L3: np.ndarray) -> "Pose":
        """The similarity that brings the mean face's landmarks nearest to these (Umeyama, 1991)."""
        model, seen = _mean_landmarks(rig), _upright(landmarks_L3)
        a, b = model - model.mean(0), seen - seen.mean(0)
        u, stretch, vt = np.linalg.svd(b.T @ a)
        mirror = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
        rotation = u @ mirror @ vt
        scale = float((stretch * np.diag(mirror)).sum() / (a**2).sum())
        return cls(scale, rotation, seen.mean(0) - scale * rotation @ model.mean(0))

    def to_picture(self, points_V3: np.ndarray) -> np.ndarray:
        """Pixels x, y (down) and depth (away, in pixels) [V, 3]."""
        x, depth, up = (self.scale * points_V3 @ self.rotation.T + self.shift).T
        return np.stack([x, -up, depth], -1)

    def to_rig(self, pixels_V3: np.ndarray) -> np.ndarray:
        """Back from x, y, depth to metres."""
        return (pixels_V3[:, [0, 2, 1]] * [1, 1, -1] - self.shift) @ self.rotation / self.scale

    def view_projection(self, shape) -> np.ndarray:
        """The camera matrix [4, 4] of the whole picture (H, W, …)."""
        height, width = shape[:2]
        reach = 0.5 * self.scale  # half a metre before and behind
        to_clip = np.array(
            [
                [2 / width, 0, 0, -1],
                [0, 0, 2 / height, 1],
                [0, 1 / reach, 0, -self.shift[1] / reach],
                [0, 0, 0, 1],
            ]
        )
        place = np.eye(4)
        place[:3, :3], place[:3, 3] = self.scale * self.rotation, self.shift
        return to_clip @ place


def _mean_landmarks(rig: Rig) -> np.ndarray:
    return rig.landmarks(rig.mean_V3[None])[0]


def _upright(landmarks_L3: np.ndarray) -> np.ndarray:
    """MediaPipe's x, y (down), z (away) in the rig's order: x, away, up."""
    return landmarks_L3[:, [0, 2, 1]] * [1, 1, -1]


def _crop(image: np.ndarray, face: Face, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The portrait crop, twice as fine as the frames where the photograph is, and the landmarks in its pixels."""
    box = np.array(portrait_crop(image, face, size))
    fine = float(np.clip((box[3] - box[1]) / size[0], 1, 2))
    height, width = round(size[0] * fine), round(size[1] * fine)
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=tuple(box))
    scale = width / (box[2] - box[0])
    landmarks = (face.landmarks[:468] - [box[0], box[1], 0]) * scale
    return np.asarray(picture), landmarks


def _fit(rig: Rig, pose: Pose, landmarks_L3: np.ndarray) -> np.ndarray:
    """The mean head bent so that its landmarks are the photograph's; lips, which touch in both, stay touching."""
    model = _mean_landmarks(rig)
    shift = pose.to_rig(landmarks_L3) - model
    shift[:, 1] *= 0.5  # depth is the network's guess
    lips = (shift[INNER_UPPER] + shift[INNER_LOWER]) / 2
    shift[INNER_UPPER] = shift[INNER_LOWER] = lips
    contact = (model[INNER_UPPER] + model[INNER_LOWER]) / 2
    keep = np.setdiff1d(np.arange(len(model)), INNER_UPPER + INNER_LOWER)
    bend = RBFInterpolator(
        np.concatenate([model[keep], contact]), np.concatenate([shift[keep], lips]), kernel="linear", smoothing=1e-4
    )
    return (rig.mean_V3 + bend(rig.mean_V3)).astype(np.float32)


def _closed(landmarks_L3: np.ndarray) -> np.ndarray:
    """Landmarks of the same face with its lips together."""
    closed = landmarks_L3.copy()
    middle = (landmarks_L3[INNER_UPPER] + landmarks_L3[INNER_LOWER]) / 2
    for inner, outer in ((INNER_UPPER, OUTER_UPPER), (INNER_LOWER, OUTER_LOWER)):
        shift = middle - landmarks_L3[inner]
        closed[inner] += shift
        closed[outer] += FOLLOWS["outer"] * shift[1:-1]
    closed[CHIN_LINE] += FOLLOWS["chin"] * (middle - landmarks_L3[INNER_LOWER])[1:-1]
    return closed


def _fit_open(rig: Rig, pose: Pose, landmarks_L3: np.ndarray) -> np.ndarray:
    """The mean head, its jaw opened as far as the photograph's, bent so that its landmarks are the photograph's."""
    jaw_V3 = rig.deltas_KV3[ACTIONS.index("jawOpen")]

    def gap(points_L3: np.ndarray) -> float:
        return float(np.linalg.norm(points_L3[INNER_UPPER] - points_L3[INNER_LOWER], axis=1).mean())

    wide = rig.landmarks((rig.mean_V3 + jaw_V3)[None])[0]
    opened_V3 = rig.mean_V3 + min(gap(landmarks_L3[:, :2]) / pose.scale / gap(wide), 1.0) * jaw_V3
    model = rig.landmarks(opened_V3[None])[0]
    shift = pose.to_rig(landmarks_L3) - model
    shift[:, 1] *= 0.5  # depth is the network's guess
    return opened_V3 + RBFInterpolator(model, shift, kernel="linear", smoothing=1e-4)(opened_V3)


def _show_inner_lips(rig: Rig, pixels_V2: np.ndarray, landmarks_L3: np.ndarray) -> np.ndarray:
    """Where each vertex takes its pixel: what is hidden between closed lips takes the red of its own lip."""
    _, depth, _ = rig.template_V3.T
    drop = rig.deltas_KV3[ACTIONS.index("jawOpen"), :, 2]
    seam_upper, seam_lower = (
        np.interp(pixels_V2[:, 0], *_left_to_right(landmarks_L3[line, :2]).T) for line in (INNER_UPPER, INNER_LOWER)
    )
    apart = np.abs(landmarks_L3[INNER_LOWER, 1] - landmarks_L3[INNER_UPPER, 1]).mean()  # teeth show: keep clear of them
    margin = 0.014 * (landmarks_L3[CHIN, 1] - landmarks_L3[FOREHEAD, 1]) + 0.15 * apart
    hidden = (rig.lip_V > 0) & (depth > -0.1472) & (np.abs(rig.template_V3[:, 0]) < 0.02)
    out = pixels_V2.copy()
    below = drop < -0.015
    for part, away in ((rig.lip_V > 0) & ~hidden, 0.4 * margin * (apart > 1)), (hidden, margin):
        out[part & below, 1] = np.maximum(out[part & below, 1], (seam_lower + away)[part & below])
        out[part & ~below, 1] = np.minimum(out[part & ~below, 1], (seam_upper - away)[part & ~below])
    return out


def _shut_lids(rig: Rig, pose: Pose, vertices_V3, open_V2, landmarks_L3) -> np.ndarray:
    """Where the upper lids take their pixels when shut: from the skin between lashes and brow, which they unfold."""
    out = open_V2.copy()
    for action, lid, brow in (("eyeBlinkLeft", LEFT_LID, LEFT_BROW), ("eyeBlinkRight", RIGHT_LID, RIGHT_BROW)):
        delta_V3 = rig.deltas_KV3[ACTIONS.index(action)]
        shut_V2 = pose.to_picture(vertices_V3 + delta_V3)[:, :2]
        lashes_V, brow_V = (np.interp(shut_V2[:, 0], *_left_to_right(landmarks_L3[i, :2]).T) for i in (lid, brow))
        plain_V = lashes_V + 0.45 * (brow_V - lashes_V)
        target_V2 = np.stack([shut_V2[:, 0], plain_V + 0.15 * (shut_V2[:, 1] - plain_V)], -1)
        unfolded_V1 = smoothstep(0.001, 0.004, -delta_V3[:, 2:])
        out += unfolded_V1 * (target_V2 - open_V2)
    return out


def _left_to_right(points: np.ndarray) -> np.ndarray:
    return points[np.argsort(points[:, 0])]


def _texture(pixels_V2: np.ndarray, shape) -> np.ndarray:
    return (pixels_V2 / [shape[1], -shape[0]] + [0, 1]).astype(np.float32)


def _head_weight(pixels_V2: np.ndarray, landmarks_L3: np.ndarray, shape) -> np.ndarray:
    """How far a pixel follows the head, 0..1 [V]: wholly within an ellipse around face and hair, not at all far off."""
    low, high = landmarks_L3[:, :2].min(0), landmarks_L3[:, :2].max(0)
    x, y = ((pixels_V2 - (low + high) / 2) / (high - low)).T
    away = np.hypot(x / 0.72, np.where(y < 0, y / 0.95, y / 0.52))
    edge = np.min([pixels_V2[:, 0], shape[1] - pixels_V2[:, 0], pixels_V2[:, 1], shape[0] - pixels_V2[:, 1]], 0)
    return (smoothstep(1.75, 1.0, away) * smoothstep(0, 0.08 * shape[0], edge)).astype(np.float32)


def _surroundings(rig: Rig, pose: Pose, pixels_V3, landmarks_L3, shape) -> Surroundings:
    """A grid over the picture, at the depth of the skin before it and at the skin's edge beyond."""
    height, width = shape[:2]
    column, row = np.meshgrid(np.linspace(0, width, CELLS + 1), np.linspace(0, height, CELLS + 1))
    pixels_N2 = np.stack([column.ravel(), row.ravel()], -1)
    shown = (rig.material_V == Material.SKIN) & (rig.cavity_V == 0) & (rig.template_V3[:, 1] < 0)
    _, nearest = KDTree(pixels_V3[shown, :2]).query(pixels_N2, k=6)
    depth = np.quantile(pixels_V3[shown, 2][nearest], 0.2, axis=1).reshape(CELLS + 1, CELLS + 1)
    depth_N = gaussian_filter(depth, 1.0, mode="nearest").ravel()
    first = (np.arange(CELLS)[:, None] * (CELLS + 1) + np.arange(CELLS)).ravel()
    upper, lower = (first, first + 1, first + CELLS + 1), (first + 1, first + CELLS + 2, first + CELLS + 1)
    return Surroundings(
        vertices_N3=pose.to_rig(np.concatenate([pixels_N2, depth_N[:, None]], -1)),
        head_N=_head_weight(pixels_N2, landmarks_L3, shape),
        texture_N2=_texture(pixels_N2, shape),
        triangles_M3=np.concatenate([np.stack(upper, -1), np.stack(lower, -1)]),
    )


def _mouth_light(picture: np.ndarray, landmarks_L3: np.ndarray) -> dict:
    """Uniforms of teeth and tongue: as bright as the photograph's light makes the brighter half of the face."""
    low, high = landmarks_L3[:, :2].min(0), landmarks_L3[:, :2].max(0)
    (left, top), (right, bottom) = low.clip(0).astype(int), high.astype(int)
    face = picture[top:bottom, left:right].reshape(-1, 3) / 255
    bright = face[face.mean(-1) > np.quantile(face.mean(-1), 0.7)].mean(0)
    light = np.clip(bright.mean(), 0.4, 0.9) ** 2 * (bright / bright.mean()) ** 0.5  # half the tint is the skin's own
    return dict(
        camera=(0.0, -1.0, 0.70),
        key_direction=(0.0, -0.9, 0.44),
        key_colour=tuple(0.8 * light),
        fill_direction=(0.0, -1.0, 0.0),
        fill_colour=tuple(0.15 * light),
        sky=tuple(0.75 * light),
        ground=tuple(0.6 * light),
        teeth=(0.80, 0.74, 0.62),
        seed=0.0,
        brow=(0.08, 0.05, 0.04),
        open_lashes=0.0,
        lower_lashes=0.0,
    )


def _border(picture: np.ndarray) -> np.ndarray:
    """The mean colour above and beside the head, 0..1."""
    top, side = picture[: picture.shape[0] // 2], picture.shape[1] // 10
    return np.concatenate([top[:, :side], top[:, -side:]]).mean((0, 1)) / 255
