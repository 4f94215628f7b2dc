"""What teaches a decoder to move a mouth: one head in one pose and light, many mouths, and the exact flow between them.

Nobody with real footage has such pairs. Every clip is one head, drawn or photographed, whose frames differ in the face
alone. For a pair of them the rig says where each pixel of the target was in the source, and if the source shows it.

Shape letters: T frame, P pair, N channel of the code, K action, H W pixels of the face's box.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from skyreels_audio.faces.framing import EYES_TO_MOUTH, FACE_BOX, MOUTH_CENTRE, anchors
from skyreels_audio.faces.landmarks import MESH_TO_68
from skyreels_audio.models.motion_autoencoder import EYE_CHANNELS, FACE_CHANNELS, MOUTH_CHANNELS
from skyreels_audio.synthetic.appearance import sample_appearance
from skyreels_audio.synthetic.background import sample_background
from skyreels_audio.synthetic.codes import code_of, weights_of
from skyreels_audio.synthetic.motion import Motion
from skyreels_audio.synthetic.person import dress
from skyreels_audio.synthetic.photograph import Framing, animate_photograph, framed_portrait
from skyreels_audio.synthetic.render import Renderer
from skyreels_audio.synthetic.rig import Material, Rig
from skyreels_audio.synthetic.subject import Subject, rotation_matrices
from skyreels_audio.synthetic.teeth import (
    gap_of,
    lay_inside,
    place_teeth,
    teeth_of,
    upper_shown,
    usual_teeth,
)
from skyreels_audio.synthetic.visemes import to_arkit

SIZE = 256  # side of the aligned frame
FRAMES, FROM_REST, BETWEEN = 14, 13, 9  # of a clip; pairs from its first frame, and between any two
JITTER = 0.04, 0.012  # deviation of a face's size and place from the frame's rule: landmarks are never exact
TURNS = {"drawn": np.radians([16, 10, 5]), "photograph": np.radians([9, 6, 4])}  # deviation of yaw, pitch, roll
STRETCH = 0.22  # source pixels per target pixel below which a surface was too folded in the source to be moved
OWN_TEETH = 0.5  # of the clips show teeth of their own, taken from a photograph of somebody who smiles
SILENCE = 0.12  # of the faces keep silent: every mouth must be able to close
TRIES = 8  # pictures that are looked at for teeth
UNSEEN = 1.6, 15  # how many times the teeth that a source shows, and how many pixels more, a target may show
NEAR = 0.004  # metres by which a point may lie behind what its place in the source shows
GRIN = {"mouthSmile": 0.9, "mouthUpperUp": 0.75, "mouthLowerDown": 0.55, "jawOpen": 0.06, "cheekSquint": 0.5}
SMILES = (
    GRIN,
    {"mouthSmile": 0.7, "mouthUpperUp": 0.5, "mouthLowerDown": 0.35, "jawOpen": 0.08, "cheekSquint": 0.3},
    {"mouthSmile": 0.8, "mouthUpperUp": 0.35, "mouthLowerDown": 0.15, "jawOpen": 0.03, "cheekSquint": 0.4},
    {"mouthSmile": 0.55, "mouthDimple": 0.2, "cheekSquint": 0.2},
    {"mouthUpperUp": 0.3, "mouthLowerDown": 0.3, "jawOpen": 0.12},
    {"mouthFrown": 0.5, "browInnerUp": 0.6, "mouthShrugLower": 0.3},
    {"browInnerUp": 0.6, "browOuterUp": 0.7, "eyeWide": 0.6, "jawOpen": 0.15},
    {"browDown": 0.7, "noseSneer": 0.3, "eyeSquint": 0.3},
)


@dataclass(frozen=True, eq=False)
class PairClip:
    """Frames of one head with their codes, and pairs of them."""

    frames_THWC: np.ndarray  # uint8, the face's box of the aligned frame
    sources_P: np.ndarray
    targets_P: np.ndarray
    codes_PN: np.ndarray  # float32, what makes the target out of the source (`FACE_CHANNELS`)
    poses_TN: np.ndarray  # float32, what each frame shows, in the same channels (keep channels zero)
    flow_PHW2: np.ndarray  # int16, pixels / 64 from a target's pixel to its place in the source: x, y
    visible_PHW: np.ndarray  # bool, whether the source shows it
    inside_THW: np.ndarray  # float16, share of a pixel that shows the inside of the mouth
    teeth_THW: np.ndarray  # bool, where of it upper teeth
    place_32: np.ndarray  # float32, (x, y, 1) in pixels of the box → place in the upper teeth (`teeth.place_teeth`)
    gap_T: np.ndarray  # float32, between upper and lower teeth (`teeth.gap_of`)


def expression(weights: dict[str, float], strength: float = 1.0) -> np.ndarray:
    """The code [N] of named actions."""
    code_N = np.zeros(len(FACE_CHANNELS), np.float32)
    for name, weight in weights.items():
        code_N[FACE_CHANNELS.index(name)] = strength * weight
    return code_N


def sample_code(curves_TC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random face that speaks: a moment of speech, now and then an expression, brows anywhere. Its eyes are open."""
    code_N = np.zeros(len(FACE_CHANNELS), np.float32)
    if rng.random() > SILENCE:
        style = rng.uniform(0.75, 1.3, curves_TC.shape[1])
        style[3] = 1.0
        code_N = code_of(to_arkit(curves_TC[[rng.integers(len(curves_TC))]], style))[0, : len(FACE_CHANNELS)]
        if rng.random() < 0.35:
            closed = 1 - code_N[FACE_CHANNELS.index("mouthPress")]
            code_N += closed * expression(SMILES[rng.integers(len(SMILES))], rng.uniform(0.1, 0.9))
        if rng.random() < 0.2:
            code_N[FACE_CHANNELS.index("jawOpen")] += rng.uniform(0, 0.6)
        if rng.random() < 0.35:  # what speech does seldom, such as round and wide mouths, must be known as well
            for channel in rng.choice(len(MOUTH_CHANNELS), 2, replace=False):
                code_N[FACE_CHANNELS.index(MOUTH_CHANNELS[channel])] += rng.uniform(0, 0.8)
    for name in ("browInnerUp", "browOuterUp", "browDown", "eyeSquint", "eyeWide"):
        if rng.random() < 0.2:
            code_N[FACE_CHANNELS.index(name)] += rng.uniform(0, 0.7)
    return np.clip(code_N, 0, 1)


def sample_rest(curves_TC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a picture shows that is to speak: closed lips, a smile with teeth, sometimes a moment of speech."""
    draw = rng.random()
    if draw < 0.3:
        return np.zeros(len(FACE_CHANNELS), np.float32)
    if draw < 0.55:
        return expression(GRIN, rng.uniform(0.6, 1.3)).clip(0, 1)
    if draw < 0.8:
        return expression(SMILES[rng.integers(len(SMILES))], rng.uniform(0.4, 1.3)).clip(0, 1)
    return sample_code(curves_TC, rng)


def blend(code_N: np.ndarray, source_N: np.ndarray) -> np.ndarray:
    """What is seen where a code is applied to a source: keep 1 leaves the source's own, keep 0 the code alone."""
    seen_N = code_N.copy()
    for channels, keep in ((MOUTH_CHANNELS, "keepMouth"), (EYE_CHANNELS, "keepEyes")):
        kept = code_N[FACE_CHANNELS.index(keep)]
        index = [FACE_CHANNELS.index(name) for name in channels]
        seen_N[index] = (1 - kept) * code_N[index] + kept * source_N[index]
    seen_N[[FACE_CHANNELS.index("keepMouth"), FACE_CHANNELS.index("keepEyes")]] = 0
    return seen_N


class PairFactory:
    """Clip n of a seed and split is always the same clip. ``photographs`` is a list of files; None draws everybody."""

    def __init__(self, curves: list[np.ndarray], photographs: list[Path], seed: int, split: str) -> None:
        self.curves, self.photographs, self.seed, self.split = curves, photographs, seed, split
        self.renderer = Renderer(SIZE)

    def clip(self, index: int) -> PairClip | None:
        """None where the drawn photograph does not lend itself."""
        rng = np.random.default_rng([self.seed, index, self.split == "test"])
        kind = "photograph" if self.photographs and rng.random() < 0.65 else "drawn"
        turn = rng.normal(size=3) * TURNS[kind] * (rng.random() < 0.7)
        turn = np.clip(turn, -2.2 * TURNS[kind], 2.2 * TURNS[kind])
        subject = self._photograph(rng) if kind == "photograph" else self._person(rng)
        if subject is None:
            return None
        subject = replace(subject, view_projection=aligned_camera(subject, turn, rng))
        curves_TC = self.curves[int(rng.integers(len(self.curves)))]
        return self._render(subject, turn, curves_TC, rng)

    def _person(self, rng: np.random.Generator) -> Subject:
        seed = 2 * int(rng.integers(1 << 30)) + (self.split == "train")
        identity = Rig.load().identity(seed)
        background = replace(sample_background(rng), drift=(0.0, 0.0))
        return dress(Rig.load(), identity, sample_appearance(seed, identity), background)

    def _photograph(self, rng: np.random.Generator) -> Subject | None:
        path = self.photographs[int(rng.integers(len(self.photographs)))]
        image, face = framed_portrait(path, Framing(float(np.exp(rng.normal(0, 0.05))), rng.normal(0, 0.02, 2)))
        if face is None:
            return None
        try:
            return animate_photograph(image, face, framed=True)
        except ValueError:
            return None

    def _render(self, subject: Subject, turn: np.ndarray, curves_TC: np.ndarray, rng: np.random.Generator) -> PairClip:
        teeth = self._own_teeth(rng)
        rest_N = sample_rest(curves_TC, rng) if teeth is None else expression(GRIN, rng.uniform(0.5, 1.2)).clip(0, 1)
        codes = []
        for _ in range(FRAMES - 1):
            code_N = sample_code(curves_TC, rng)
            for keep in ("keepMouth", "keepEyes"):
                code_N[FACE_CHANNELS.index(keep)] = rng.uniform(0, 1) if rng.random() < 0.5 else 0.0
            codes.append(code_N)
        poses_TN = np.stack([rest_N, *(blend(code_N, rest_N) for code_N in codes)])
        zero = np.zeros((FRAMES, 3), np.float32)
        rotation = np.repeat(turn[None], FRAMES, 0).astype(np.float32)
        gaze = np.repeat(rng.normal(0, 0.08, (1, 2)), FRAMES, 0).astype(np.float32)
        motion = Motion(weights_of(poses_TN).astype(np.float32), rotation, zero, gaze)
        frames = self.renderer.render(subject, motion).frames
        pairs = [(0, target) for target in range(1, FROM_REST + 1)]
        codes_PN = list(codes[:FROM_REST])
        for _ in range(BETWEEN):
            source, target = rng.choice(FRAMES, 2, replace=False)
            pairs.append((int(source), int(target)))
            codes_PN.append(poses_TN[target])
        own = self.renderer.places(subject, motion, [(t, t) for t in range(FRAMES)])
        inside_THW = self.renderer.insides(subject, motion)
        place_32 = place_teeth(self.renderer.seen(subject, motion, 0))
        gap_T = np.array([gap_of(self.renderer.seen(subject, motion, t), place_32) for t in range(FRAMES)])
        teeth_THW = upper_shown(inside_THW, place_32)
        shown = usual_teeth().copy()
        if teeth is not None:
            shown[:3] = teeth.transpose(2, 0, 1)
        frames = lay_inside(frames, inside_THW, place_32, gap_T, SIZE * np.array(FACE_BOX), shown)
        if teeth is not None:  # what their owner alone knows cannot be painted, only moved
            shown_T, (times, more) = teeth_THW.sum((1, 2)), UNSEEN
            known = [shown_T[target] < times * shown_T[source] + more for source, target in pairs]
            pairs = [pair for pair, k in zip(pairs, known, strict=True) if k]
            codes_PN = [code for code, k in zip(codes_PN, known, strict=True) if k]
        places = self.renderer.places(subject, motion, pairs)
        near = depth_of(subject, NEAR)
        box = tuple(
            slice(round(a * SIZE), round(b * SIZE)) for a, b in ((FACE_BOX[1], FACE_BOX[3]), (FACE_BOX[0], FACE_BOX[2]))
        )
        flows, visible = zip(
            *(flow_between(own[s], place, near) for (s, _), place in zip(pairs, places, strict=True)),
            strict=True,
        )
        return PairClip(
            frames_THWC=frames[(slice(None), *box)],
            sources_P=np.array([s for s, _ in pairs]),
            targets_P=np.array([t for _, t in pairs]),
            codes_PN=np.stack(codes_PN),
            poses_TN=poses_TN,
            flow_PHW2=np.stack([np.round(64 * f[box]).clip(-32767, 32767).astype(np.int16) for f in flows]),
            visible_PHW=np.stack([v[box] for v in visible]),
            inside_THW=inside_THW[(slice(None), *box)].astype(np.float16),
            teeth_THW=teeth_THW[(slice(None), *box)],
            place_32=(_shift(box[1].start, box[0].start) @ place_32).astype(np.float32),
            gap_T=gap_T.astype(np.float32),
        )

    def _own_teeth(self, rng: np.random.Generator) -> np.ndarray | None:
        """Teeth from a photograph, for some clips, where one is found that shows any."""
        if not self.photographs or rng.random() > OWN_TEETH:
            return None
        chosen = (self.photographs[int(i)] for i in rng.integers(len(self.photographs), size=TRIES))
        return next((teeth for path in chosen if (teeth := teeth_of(path)) is not None), None)


def flow_between(source_HW4: np.ndarray, places_HW4: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Flow [H, W, 2] in pixels and visibility [H, W] from ``Renderer.places`` of a source on itself and of the pair.

    A point was visible when the source shows at its place the same surface at the same depth, not folded up.
    """
    height, width = places_HW4.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    behind = places_HW4[..., 3] == 0
    place = np.where(behind[..., None], np.stack([x, y], -1), places_HW4[..., :2])
    column = np.clip(place[..., 0].astype(int), 0, width - 1)
    row = np.clip(place[..., 1].astype(int), 0, height - 1)
    there = source_HW4[row, column]
    # The tongue is drawn elsewhere than where the rig has it.
    same = (there[..., 3] == places_HW4[..., 3]) & (places_HW4[..., 3] != Material.TONGUE + 1)
    at_front = places_HW4[..., 2] < there[..., 2] + near
    (dxy, dxx), (dyy, dyx) = np.gradient(place[..., 0]), np.gradient(place[..., 1])
    area = np.abs(dxx * dyy - dxy * dyx)
    visible = same & (behind | (at_front & (area > STRETCH) & (places_HW4[..., 3] % 1 == 0)))
    return place - np.stack([x, y], -1), visible


def _shift(right: float, down: float) -> np.ndarray:
    """Matrix [3, 3] that (x, y, 1) is multiplied by from the left to be moved."""
    return np.array([[1.0, 0, 0], [0, 1, 0], [right, down, 1]])


def depth_of(subject: Subject, metres: float) -> float:
    """How much nearer, in NDC, something at the face is that stands ``metres`` nearer to the camera."""
    eye = subject.vertices_V3.mean(0)
    ahead = eye + [0, -metres, 0]
    near, far = (np.append(p, 1) @ subject.view_projection.T for p in (ahead, eye))
    return float(abs(far[2] / far[3] - near[2] / near[3]))


def aligned_camera(subject: Subject, turn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The subject's camera matrix, its lens shifted and zoomed so that the turned face stands as every face does."""
    rig, matrix = Rig.load(), subject.view_projection.copy()
    points = rig.landmarks(subject.vertices_V3[None])[0][list(MESH_TO_68)]
    points = (points - subject.pivot) @ rotation_matrices(turn[None])[0].T + subject.pivot
    seen = np.c_[points, np.ones(68)] @ matrix.T
    eyes, mouth = anchors(seen[:, :2] / seen[:, 3:])
    zoom = float(np.exp(rng.normal(0, JITTER[0]))) * 2 * EYES_TO_MOUTH / float(np.linalg.norm(mouth - eyes))
    x, y = MOUTH_CENTRE + rng.normal(0, JITTER[1], 2)
    wanted = np.array([2 * x - 1, 1 - 2 * y])
    matrix[:2] = zoom * matrix[:2] + (wanted - zoom * mouth)[:, None] * matrix[3]
    return matrix
