"""What a mouth in a video does, frame by frame: curves regressed from its picture, aperture from landmarks, agreement.

Shape letters: F frame, C curve, K action of the rig, N picture.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from skyreels_audio import faces
from skyreels_audio.faces.landmarks import face_height

# curve → the rig's action that is its truth in a rendered clip
CURVES = {"jaw": "jawOpen", "funnel": "mouthFunnel", "pucker": "mouthPucker", "press": "mouthPressLeft"}
CURVES |= {"wide": "mouthStretchLeft"}
SIDE = 64  # pixels of a mouth crop
EXTENT = 0.66  # side of the crop in face heights
BELOW = 0.07  # how far the crop's centre lies below the line of the lip corners, in face heights: the jaw drops
CORNERS = [48, 54]  # of the 68 points


def true_curves(weights_FK: np.ndarray) -> np.ndarray:
    """The curves [F, C] of a rendered motion (``Motion.weights_TK``)."""
    from skyreels_audio.synthetic.rig import ACTIONS

    return weights_FK[:, [ACTIONS.index(action) for action in CURVES.values()]]


def mouth_box(landmarks: np.ndarray) -> np.ndarray:
    """The square around mouth and chin, placed by what the jaw does not move: float [4] xyxy, pixels."""
    points = faces.as_68(landmarks)
    height = face_height(landmarks)
    centre = points[CORNERS].mean(0) + [0, BELOW * height]
    half = EXTENT * height / 2
    return np.concatenate([centre - half, centre + half])


def crop(frames_FHWC: np.ndarray, box_xyxy: np.ndarray) -> np.ndarray:
    """The same box of every frame: uint8 [F, SIDE, SIDE, 3]; what lies past an edge repeats the edge."""
    left, top, right, bottom = (int(v) for v in np.round(box_xyxy))
    height, width = frames_FHWC.shape[1:3]
    rows, columns = (np.arange(a, b).clip(0, n - 1) for a, b, n in ((top, bottom, height), (left, right, width)))
    cut = frames_FHWC[:, rows[:, None], columns]
    return np.stack([np.asarray(Image.fromarray(c).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for c in cut])


class LipRegressor(nn.Module):
    """Mouth crops [N, 3, SIDE, SIDE], values 0 … 255 → curves [N, C], about 0 … 1. Half a million weights."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = [(3, 32, 7, 4), (32, 64, 3, 2), (64, 64, 3, 1), (64, 128, 3, 2), (128, 128, 3, 1)]
        for before, after, kernel, stride in widths:
            layers += [nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.GroupNorm(8, after), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128 * 16, 96), nn.SiLU(), nn.Linear(96, len(CURVES)))

    def forward(self, crops_NCHW: Tensor) -> Tensor:
        std, mean = torch.std_mean(crops_NCHW, dim=(2, 3), keepdim=True)  # light and skin say nothing about lips
        return self.head(self.features((crops_NCHW - mean) / (std + 8)))


@cache
def lip_regressor() -> LipRegressor:
    """The packaged network; `lip_training.py` made it."""
    from safetensors.torch import load_file

    model = LipRegressor()
    with as_file(files("skyreels_audio.evaluation") / "assets" / "lips.safetensors") as path:
        model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return model.eval()


@torch.no_grad()
def read_crops(model: LipRegressor, crops_FHWC: np.ndarray) -> np.ndarray:
    """Curves [F, C] of mouth crops."""
    crops_FCHW = torch.from_numpy(crops_FHWC).permute(0, 3, 1, 2).float()
    return torch.cat([model(part) for part in torch.split(crops_FCHW, 64)]).numpy()


def lip_curves(frames_FHWC: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
    """The curves [F, C] that a video of one face shows, columns in the order of ``CURVES``.

    The mouth is looked for where it is in the first frame (``landmarks``, 68 or 478 points; detected if not given), so
    the head may sway and nod but not walk. Raises ValueError without a face.
    """
    if landmarks is None:
        found = faces.detect_faces(frames_FHWC[0])
        if not found:
            raise ValueError("no face in the first frame to read lips from")
        landmarks = found[0].landmarks
    return read_crops(lip_regressor(), crop(frames_FHWC, mouth_box(landmarks)))


def lip_aperture_curve(frames_FHWC: np.ndarray) -> np.ndarray:
    """Gap of the inner lips over the face's height in every frame [F], by landmarks: for photographs and paintings.

    Frames without a face take their neighbours' values. Raises ValueError if none has one.
    """
    tracks = faces.track_faces(frames_FHWC)
    if not tracks:
        raise ValueError("no face in the video to read lips from")
    seen = [(index, faces.lip_aperture(face.landmarks)) for index, face in enumerate(tracks[0].faces) if face]
    known, values = zip(*seen, strict=True)
    return np.interp(np.arange(len(frames_FHWC)), known, values).astype(np.float32)


@dataclass(frozen=True)
class Agreement:
    """How a predicted curve follows the true one."""

    r: float  # Pearson correlation
    lag: int  # frames by which the prediction comes late, where the correlation is largest
    r_at_lag: float


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r; 0 if one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 1e-9 else 0.0


def lagged_correlations(predicted: np.ndarray, true: np.ndarray, max_lag: int) -> np.ndarray:
    """r with the prediction late by -max_lag … max_lag frames: [2·max_lag + 1]."""
    count = len(true)
    if len(predicted) != count or count <= 2 * max_lag + 2:
        raise ValueError(f"curves must be equally long and longer than the lags, not {len(predicted)} and {count}")
    lags = range(-max_lag, max_lag + 1)
    return np.array(
        [correlation(predicted[max(k, 0) : count + min(k, 0)], true[max(-k, 0) : count - max(k, 0)]) for k in lags]
    )


def curve_agreement(predicted: np.ndarray, true: np.ndarray, max_lag: int = 8) -> Agreement:
    """Correlation of two curves [F], as they are and at the lag where it is largest."""
    r = lagged_correlations(predicted, true, max_lag)
    best = int(r.argmax())
    return Agreement(float(r[max_lag]), best - max_lag, float(r[best]))
