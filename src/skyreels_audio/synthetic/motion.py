"""How a head moves while it speaks: viseme curves and loudness → face actions, head pose and gaze, frame by frame."""

from dataclasses import dataclass

import numpy as np

from skyreels_audio.synthetic.rig import ACTIONS
from skyreels_audio.synthetic.visemes import CURVE_RATE, VISEME_CHANNELS, to_arkit

FPS = 25

# Actions (both sides) at full intensity. The mouth's own opening is speech alone, so that silence keeps lips closed.
EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smiling": {"mouthSmile": 0.6, "cheekSquint": 0.35, "eyeSquint": 0.15, "mouthDimple": 0.15},
    "sad": {"mouthFrown": 0.6, "browInnerUp": 0.75, "mouthShrugLower": 0.2, "eyeLookDown": 0.15},
    "surprised": {"browInnerUp": 0.7, "browOuterUp": 0.8, "eyeWide": 0.7},
    "angry": {"browDown": 0.9, "eyeSquint": 0.35, "noseSneer": 0.35, "mouthFrown": 0.25},
}
# Head motion: limits of rotation (radians) and translation (metres), before a gesture adds to them.
HEADS = {"still": (0.0, 0.0), "slight": (np.radians(3.0), 0.002), "lively": (np.radians(7.0), 0.005)}
GESTURES = {"nodding": (1, 1.0), "shaking": (0, 1.4)}  # axis of rotation, relative size
GESTURE_REACH = np.radians(6.0)
# Where somebody looks instead of into the camera: yaw to their left and pitch down, radians.
DIRECTIONS = {
    "looking left": (np.radians(9), 0.0),
    "looking right": (np.radians(-9), 0.0),
    "looking down": (0.0, np.radians(7)),
    "looking up": (0.0, np.radians(-7)),
}
TURNING = 0.35  # seconds until most of the way is gone

_BLINK = (0.35, 0.9, 1.0, 0.8, 0.4, 0.15)  # eyelids on successive frames, about a fifth of a second
_ROUND = [VISEME_CHANNELS.index("funnel"), VISEME_CHANNELS.index("pucker")]
_PRESS = VISEME_CHANNELS.index("press")


@dataclass(frozen=True, eq=False)
class Motion:
    """What moves in a clip; T frames at `fps`, frame k at time k / fps."""

    weights_TK: np.ndarray  # float32, 52 ARKit actions in the order of rig.ACTIONS, 0..1
    rotation_T3: np.ndarray  # float32, radians: yaw to the person's left, pitch down, roll
    translation_T3: np.ndarray  # float32, metres
    gaze_T2: np.ndarray  # float32, radians: to the person's left, up
    fps: float = FPS

    def __len__(self) -> int:
        return len(self.weights_TK)


@dataclass(frozen=True)
class Manner:
    """How somebody speaks. The default moves nothing but the mouth."""

    expression: str = "neutral"  # a key of EXPRESSIONS
    head: str = "still"  # a key of HEADS
    gesture: str | None = None  # a key of GESTURES or DIRECTIONS; needs a head that is not still
    blinks: bool = False
    upper_face: bool = False  # wandering gaze, brows that follow stress, an expression that breathes

    def __post_init__(self) -> None:
        if self.expression not in EXPRESSIONS:
            raise ValueError(f"no expression {self.expression!r}; there are {', '.join(EXPRESSIONS)}")
        if self.head not in HEADS:
            raise ValueError(f"no head motion {self.head!r}; there are {', '.join(HEADS)}")
        gestures = (*GESTURES, *DIRECTIONS)
        if self.gesture is not None and (self.gesture not in gestures or self.head == "still"):
            raise ValueError(f"no gesture {self.gesture!r} of a {self.head} head; there are {', '.join(gestures)}")


MOUTH_ONLY = Manner()


def sample_manner(rng: np.random.Generator) -> Manner:
    """A manner of the full training set: mostly modest motion, every expression, now and then a gesture."""
    head = str(rng.choice(list(HEADS), p=[0.25, 0.6, 0.15]))
    return Manner(
        expression=str(rng.choice(list(EXPRESSIONS), p=[0.4, 0.3, 0.1, 0.1, 0.1])),
        head=head,
        gesture=str(rng.choice(list(GESTURES))) if head != "still" and rng.random() < 0.3 else None,
        blinks=bool(rng.random() < 0.85),
        upper_face=bool(rng.random() < 0.8),
    )


def to_frames(values: np.ndarray, frames: int, fps: float = FPS) -> np.ndarray:
    """Curves at 100 Hz [n, ...] → [frames, ...]: the mean of half a frame around each frame's time, like a shutter."""
    half = round(CURVE_RATE / fps / 2)
    weights = np.array([0.5, *[1.0] * (2 * half - 1), 0.5]) / (2 * half)
    middle = np.round(np.arange(frames) * CURVE_RATE / fps).astype(int)
    around = np.clip(middle[:, None] + np.arange(-half, half + 1), 0, len(values) - 1)
    return np.tensordot(values[around], weights, (1, 0)).astype(np.float32)


def animate(
    curves: np.ndarray,
    loudness: np.ndarray,
    rng: np.random.Generator,
    manner: Manner = MOUTH_ONLY,
    frames: int | None = None,
) -> Motion:
    """The motion of a head that speaks.

    `curves` [n, 9] and `loudness` [n] are at 100 Hz (`visemes.curves`, `visemes.loudness`); `frames` defaults to all of
    them. With `MOUTH_ONLY` only the actions that speech drives move; head pose, gaze and every other action stay zero.
    """
    from scipy.ndimage import gaussian_filter1d

    frames = len(curves) * FPS // CURVE_RATE if frames is None else frames
    curves_TC = to_frames(curves, frames)
    stress_T = gaussian_filter1d(to_frames(loudness, frames), 2)
    stress_T = np.clip(stress_T / max(float(np.percentile(stress_T, 90)), 1e-6), 0, 1.5).astype(np.float32)

    style_C = rng.uniform(0.85, 1.15, len(VISEME_CHANNELS)).astype(np.float32)
    style_C[_PRESS] = 1.0
    weights_TK = to_arkit(curves_TC, style_C) + _expression(manner, curves_TC, rng)
    if manner.upper_face:
        weights_TK += _brows(stress_T, rng)
    if manner.blinks:
        weights_TK[:, _actions("eyeBlink")] = _blinks(frames, rng)[:, None]
    rotation_T3, translation_T3 = _head(manner, stress_T, rng)
    gaze_T2 = _gaze(frames, rng) if manner.upper_face else np.zeros((frames, 2), np.float32)
    return Motion(np.clip(weights_TK, 0, 1).astype(np.float32), rotation_T3, translation_T3, gaze_T2)


def _actions(name: str) -> list[int]:
    """Indices of an action: one, or its left and right."""
    return [index for index, action in enumerate(ACTIONS) if action in (name, name + "Left", name + "Right")]


def _drift(frames: int, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit variance that changes over about `seconds`: float32 [frames]."""
    from scipy.ndimage import gaussian_filter1d

    sigma = seconds * FPS
    margin = int(4 * sigma)
    noise = gaussian_filter1d(rng.normal(size=frames + 2 * margin), sigma)[margin : margin + frames]
    return (noise * np.sqrt(2 * np.sqrt(np.pi) * sigma)).astype(np.float32)


def _expression(manner: Manner, curves_TC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The expression's actions [T, 52]. Rounding and closing the lips take precedence over its share of the mouth."""
    frames = len(curves_TC)
    intensity_T = np.full(frames, rng.uniform(0.6, 1.0), np.float32)
    if manner.upper_face:
        intensity_T *= 1 + 0.15 * np.tanh(_drift(frames, 0.8, rng))
    free_T = np.clip(1 - 0.6 * curves_TC[:, _ROUND].max(1) - 0.5 * curves_TC[:, _PRESS], 0, 1)
    weights_TK = np.zeros((frames, len(ACTIONS)), np.float32)
    for action, weight in EXPRESSIONS[manner.expression].items():
        share_T = weight * intensity_T * (free_T if action.startswith("mouth") else 1)
        weights_TK[:, _actions(action)] += share_T[:, None]
    return weights_TK


def _brows(stress_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brows that rise with stressed syllables and wander a little: [T, 52]."""
    from scipy.ndimage import gaussian_filter1d

    frames = len(stress_T)
    lift_T = rng.uniform(0, 0.35) * np.clip(gaussian_filter1d(stress_T, 3) - 0.5, 0, 1) + 0.1 * _drift(frames, 0.5, rng)
    weights_TK = np.zeros((frames, len(ACTIONS)), np.float32)
    for action, share_T in (("browInnerUp", lift_T), ("browOuterUp", 0.7 * lift_T), ("browDown", -lift_T)):
        weights_TK[:, _actions(action)] = np.clip(share_T, 0, 0.6)[:, None]
    return weights_TK


def _blinks(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Eyelids [T]: a blink every 1.5 to 5 s."""
    lids_T, time = np.zeros(frames, np.float32), rng.uniform(-2, 3)
    while (first := round(time * FPS)) < frames:
        for frame, lid in enumerate(_BLINK, first):
            if 0 <= frame < frames:
                lids_T[frame] = lid
        time += rng.uniform(1.5, 5)
    return lids_T


def _head(manner: Manner, stress_T: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation [T, 3]: slow drift, a dip of the chin on stress, and the gesture, also in time with it.

    Both start from zero, so that the first frame shows the head as the portrait framed it.
    """
    frames, (turn, shift) = len(stress_T), HEADS[manner.head]
    if manner.head == "still":
        return np.zeros((frames, 3), np.float32), np.zeros((frames, 3), np.float32)
    rotation_T3 = np.stack([0.5 * _drift(frames, rng.uniform(0.35, 0.8), rng) for _ in range(3)], 1)
    rotation_T3[:, 1] += rng.uniform(0.1, 0.5) * stress_T
    rotation_T3[:, 2] *= 0.6
    translation_T3 = np.stack([0.5 * _drift(frames, rng.uniform(0.4, 0.9), rng) for _ in range(3)], 1)
    if manner.gesture in GESTURES:
        axis, size = GESTURES[manner.gesture]
        rotation_T3 *= 0.4
        rotation_T3[:, axis] += rng.uniform(0.8, 1.3) * size * _beat(stress_T)
        turn = max(turn, GESTURE_REACH)
    rotation_T3, translation_T3 = rotation_T3 - rotation_T3[:1], translation_T3 - translation_T3[:1]
    rotation_T3 = turn * np.tanh(rotation_T3)
    if manner.gesture in DIRECTIONS:
        arrival_T = 1 - np.exp(-np.square(np.arange(frames) / FPS / TURNING))
        rotation_T3[:, :2] += arrival_T[:, None] * rng.uniform(0.7, 1.3) * np.array(DIRECTIONS[manner.gesture])
    return rotation_T3.astype(np.float32), (shift * np.tanh(translation_T3)).astype(np.float32)


def _beat(stress_T: np.ndarray) -> np.ndarray:
    """What goes to and fro with the stresses of speech, once or twice a second, of unit deviation.

    A gesture in time with the voice can be learnt from it; one that begins anywhere has zero for its mean.
    """
    from scipy.ndimage import gaussian_filter1d

    beat_T = gaussian_filter1d(stress_T, 2.5) - gaussian_filter1d(stress_T, 7)
    return beat_T / max(float(beat_T.std()), 1e-3)


def _gaze(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Gaze [T, 2] that rests, jumps, and rests again, mostly near the camera."""
    gaze_T2, frame = np.zeros((frames, 2), np.float32), 0
    while frame < frames:
        rest = int(rng.uniform(0.5, 3) * FPS)
        target = rng.normal(size=2) * [0.07, 0.04] if rng.random() < 0.6 else np.zeros(2)
        gaze_T2[frame : frame + rest] = target
        frame += rest
    return gaze_T2
