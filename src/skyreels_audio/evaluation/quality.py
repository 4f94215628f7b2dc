"""How near pictures are, how still what should be still is. Pictures are uint8 [..., H, W, 3], RGB."""

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter

from skyreels_audio.faces.landmarks import face_box, face_height

HAIR = 0.22  # face heights around the hull of the face that count as head
SETTLE = 0.3  # seconds in which a mouth may still close after the voice has ended, and open before it begins


def psnr(a: np.ndarray, b: np.ndarray, where_HW: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of equally large pictures or videos, where the mask is true; inf if equal."""
    difference = a.astype(np.float32) - b.astype(np.float32)
    if where_HW is not None:
        difference = difference[..., where_HW, :]
    error = float(np.square(difference).mean())
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two pictures' luma with a Gaussian window, sigma 1.5 (Wang et al., 2004)."""
    x, y = (picture.astype(np.float64) @ [0.299, 0.587, 0.114] for picture in (a, b))

    def local(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, truncate=3.5)

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(similarity[5:-5, 5:-5].mean())  # windows that leave the picture do not count


def box_mask(box_xyxy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """True inside a box: bool [H, W]."""
    left, top, right, bottom = box_xyxy
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (x + 0.5 >= left) & (x + 0.5 < right) & (y + 0.5 >= top) & (y + 0.5 < bottom)


def static_mask(landmarks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Where nothing should move while somebody speaks: all but the face and ``HAIR`` around its box. bool [H, W]."""
    box = face_box(landmarks)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    canvas = Image.new("1", (shape[1], shape[0]))
    left, top, right, bottom = (*(centre - half), *(centre + half))
    ImageDraw.Draw(canvas).ellipse([left, top, right, bottom], fill=1)
    away = np.asarray(distance_transform_edt(~np.asarray(canvas)))
    return away > HAIR * face_height(landmarks)


def movement(curve_F: np.ndarray) -> float:
    """Mean change of a curve from frame to frame."""
    return float(np.abs(np.diff(curve_F)).mean())


def silence_ratio(curve_F: np.ndarray, silent_F: np.ndarray, fps: float = 25.0) -> float:
    """Movement of a mouth's curve in silence over that in speech; nan without either.

    ``SETTLE`` at both ends of every silence counts for neither.
    """
    from scipy.ndimage import binary_erosion

    settle = np.ones(2 * round(SETTLE * fps) + 1)
    still = np.asarray(binary_erosion(silent_F, settle, border_value=1))
    change = np.abs(np.diff(curve_F))
    in_silence = change[np.logical_and(still[1:], still[:-1])]
    in_speech = change[~np.logical_or(silent_F[1:], silent_F[:-1])]
    if not len(in_silence) or not len(in_speech) or in_speech.mean() == 0:
        return float("nan")
    return float(in_silence.mean() / in_speech.mean())
