"""What a filmed face does, as codes of motion: what the decoder makes of this very face by known codes is inverted.

Shape letters: F pixel frame, D drawn code, N channel of a code, L coordinate of a landmark.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skyreels_audio import faces
from skyreels_audio.faces.align import placement
from skyreels_audio.faces.landmarks import face_height, lip_aperture
from skyreels_audio.faces.mesh import follow
from skyreels_audio.generation.compositing import Aligned, Compositor
from skyreels_audio.models.motion_autoencoder import FACE_CHANNELS

DRAWS = 160
JITTER = 0.3  # of a channel's deviation, so that channels that usually move together can be told apart
NOISE = 0.002  # of landmarks, in heights of the face


@torch.no_grad()
def read_motion(frames_FHWC: np.ndarray, points_F682: np.ndarray, usual_DN: Tensor, vae: Any) -> Tensor:
    """The codes [F, N] that, from the frame with the most closed lips on, make what the frames show.

    That frame is moved by ``usual_DN``, codes as speech has them, jittered; landmarks are found in the results; and a
    ridge regression of codes on landmarks reads the frames.

    Args:
        frames_FHWC: uint8, 25 per second.
        points_F682: landmarks in them, as `faces` finds them.
        vae: a ``MotionAutoencoder``.

    Raises:
        ValueError: the face is not seen in every frame.
    """
    if not np.isfinite(points_F682).all():
        raise ValueError("the face is not seen in every frame")
    still = int(np.argmin([lip_aperture(points) for points in points_F682]))
    found = faces.detect_faces(frames_FHWC[still])
    if not found:
        raise ValueError("no face is found in the frame with the most closed lips")
    size = tuple(vae.config.size)
    aligned = Aligned(frames_FHWC[still], placement(points_F682[still], size), size, landmarks=found[0].landmarks)
    codes_DN = drawn(usual_DN)
    moved = Compositor(aligned, vae).frames(codes_DN)
    shown = np.stack([faces.landmarks_68(follow(Image.fromarray(frame), found[0])) for frame in moved])
    height = face_height(points_F682[still])
    codes_FN = _ridge(shown.reshape(len(shown), -1) / height, codes_DN.double().numpy())(
        points_F682.reshape(len(points_F682), -1) / height
    )
    return _possible(torch.from_numpy(codes_FN).float())


def drawn(usual_DN: Tensor, seed: int = 0) -> Tensor:
    """``DRAWS`` of the usual codes, jittered."""
    generator = torch.Generator().manual_seed(seed)
    chosen_DN = usual_DN[torch.randint(len(usual_DN), (DRAWS,), generator=generator)]
    jitter_DN = JITTER * usual_DN.std(0) * torch.randn(chosen_DN.shape, generator=generator)
    return _possible(chosen_DN + jitter_DN)


def _possible(codes_FN: Tensor) -> Tensor:
    """Codes whose actions of the face are between 0 and 1."""
    count = len(FACE_CHANNELS)
    return torch.cat([codes_FN[:, :count].clamp(0, 1), codes_FN[:, count:]], 1)


def _ridge(shown_DL: np.ndarray, codes_DN: np.ndarray) -> Any:
    """The linear map from landmarks to codes that expects ``NOISE`` in the former."""
    mean_L, mean_N = shown_DL.mean(0), codes_DN.mean(0)
    a_DL, penalty = shown_DL - mean_L, len(shown_DL) * NOISE**2
    map_LN = np.linalg.solve(a_DL.T @ a_DL + penalty * np.eye(a_DL.shape[1]), a_DL.T @ (codes_DN - mean_N))
    return lambda points_FL: (points_FL - mean_L) @ map_LN + mean_N
