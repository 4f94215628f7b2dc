"""Motion as the code of ``models.motion_autoencoder``: what a talking head does, relative to the picture it comes from.

Shape letters: T frame, C channel of the viseme curves, N channel of the code, K action of the rig.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from skyreels_audio.models.motion_autoencoder import CHANNELS, EYE_CHANNELS, MOUTH_CHANNELS
from skyreels_audio.synthetic.motion import FPS, Manner, animate, to_frames
from skyreels_audio.synthetic.rig import ACTIONS

FRAMES_PER_METRE = 3.05  # heights of the aligned frame that a metre on the rig is
KEEP_SPEAKING = 0.22  # of the picture's own mouth that stays while somebody speaks; none where lips must meet
KEEP_EXPRESSION = 0.3  # and at rest, where an expression was asked for that the picture may not have

MOUTH, EYES = ([CHANNELS.index(name) for name in names] for names in (MOUTH_CHANNELS, EYE_CHANNELS))
KEEP_MOUTH, KEEP_EYES, HEAD = CHANNELS.index("keepMouth"), CHANNELS.index("keepEyes"), CHANNELS.index("yaw")
_NAMES = [action.removesuffix("Left").removesuffix("Right") for action in ACTIONS]


def code_of(weights_TK: np.ndarray) -> np.ndarray:
    """The code [T, N] of the rig's weights, the mean of both sides of the face; nothing of a source is kept."""
    codes_TN = np.zeros((len(weights_TK), len(CHANNELS)), np.float32)
    for n, channel in enumerate(CHANNELS):
        if channel in _NAMES:
            chosen = [k for k, name in enumerate(_NAMES) if name == channel]
            codes_TN[:, n] = weights_TK[:, chosen].mean(1)
    return codes_TN


def weights_of(codes_TN: np.ndarray) -> np.ndarray:
    """The rig's weights [T, 52] of a code: both sides of the face do the same."""
    zero = np.zeros_like(codes_TN[:, 0])
    return np.stack([codes_TN[:, CHANNELS.index(n)] if n in CHANNELS else zero for n in _NAMES], -1)


def speech_code(
    curves: np.ndarray, loudness: np.ndarray, manner: Manner, rng: np.random.Generator, frames: int | None = None
) -> np.ndarray:
    """Codes [T, N] of a head that says what viseme curves [n, C] and loudness [n], both at 100 Hz, tell.

    In silence the picture's own mouth and eyes are kept; speech takes over as far as it moves them.
    """
    motion = animate(curves, loudness, rng, manner, frames)
    codes_TN = code_of(motion.weights_TK)
    moving_T = to_frames(curves, len(motion)).max(1)
    speaking_T = gaussian_filter1d(maximum_filter1d(np.clip(6 * moving_T, 0, 1), 5), 1.2)
    lips_T = np.clip(codes_TN[:, CHANNELS.index("mouthPress")] / 0.35, 0, 1)
    at_rest, speaking = (1.0, KEEP_SPEAKING) if manner.expression == "neutral" else (KEEP_EXPRESSION, 0.1)
    keep_T = at_rest + (speaking - at_rest) * speaking_T
    keep_T *= 1 - lips_T * speaking_T
    codes_TN[:, KEEP_MOUTH] = keep_T
    codes_TN[:, MOUTH] = np.clip(codes_TN[:, MOUTH] / np.maximum(1 - keep_T, 0.1)[:, None], 0, 1)

    used_T = gaussian_filter1d(np.clip(1.5 * codes_TN[:, EYES].max(1), 0, 1), 0.4)
    used_T = np.maximum(used_T, codes_TN[:, CHANNELS.index("eyeBlink")])
    codes_TN[:, KEEP_EYES] = 1 - used_T
    codes_TN[:, EYES] = np.clip(codes_TN[:, EYES] / np.maximum(used_T, 0.05)[:, None], 0, 1)

    shift_T2 = FRAMES_PER_METRE * motion.translation_T3[:, [0, 2]] * [1, -1]
    codes_TN[:, HEAD:] = np.concatenate([motion.rotation_T3, shift_T2], 1)
    return codes_TN


assert FPS == 25  # of the code; other rates are resampled where it is decoded
