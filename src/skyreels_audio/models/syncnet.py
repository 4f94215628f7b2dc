"""Sync experts: do these lips say this sound, and by how many frames is it off?

`SyncNet` is that of Chung & Zisserman, "Out of time: automated lip sync in the wild", 2016: the published weights
(`syncnet_v2.model`), and smaller ones that `train` makes, of which one ships. Distances of different weights are on
different scales.

Shapes: N windows of 5 frames (0.2 s), F frame at 25 per second, H W pixels, n samples at 16 kHz, M frame of 10 ms,
D width of the embedding.
"""

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from skyreels_audio.bundled import bundled
from skyreels_audio.media import SAMPLE_RATE, InputError

FRAMES_PER_SECOND = 25
WINDOW = 5
"""Frames of one window."""
COEFFICIENTS, MFCC_PER_FRAME = 13, 4
MFCC_WINDOW = WINDOW * MFCC_PER_FRAME
MARGIN = 0.4
"""What is seen around a face's box, in half heights of it."""
OURS = "sync expert (ours)"
"""The name under which tables show the numbers of `load_sync_expert`, which are not those of the published weights."""


@dataclass(frozen=True)
class Sync:
    """What a sync expert says of a clip.

    Attributes:
        offset: frames by which the sound comes late; negative: early. (SyncNet's own tools print the negative of it.)
        confidence: median minus least of ``distances`` (Sync-C).
        distance: the least of ``distances`` (Sync-D).
        distances: mean distance of lips and sound with the sound taken from 0 frames later in the middle, earlier
            before it, later after it: [2 · shifts + 1].
    """

    offset: int
    confidence: float
    distance: float
    distances: np.ndarray


class SyncNet(ModelMixin, ConfigMixin):
    """Two towers, one for five frames of a face, one for 0.2 s of sound, that meet in one space.

    Args:
        embedding: width D of the common space.
        scale: of all inner widths; 1 is the published network.
        side: pixels of the picture that the network sees, cut from the face crop and resized.
        region: what of the face crop (`face_crops`) is seen: left, top, right, bottom in fractions of it.
        normalise: remove light and skin (mean and deviation of each frame), and bring embeddings to length 1. The
            published network reads BGR from 0 to 255 as it is.
        zero_edges: as the published tool does, compare with zeros where shifted sound is past the clip's ends; else
            these places do not count.
    """

    config: Any

    @register_to_config
    def __init__(
        self,
        embedding: int = 1024,
        scale: float = 1.0,
        side: int = 224,
        region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
        normalise: bool = False,
        zero_edges: bool = True,
    ) -> None:
        super().__init__()
        w64, w96, w192, w256, w384, w512 = (round(scale * width) for width in (64, 96, 192, 256, 384, 512))
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, w64), nn.MaxPool2d(1, 1),
            *_conv2d(w64, w192), nn.MaxPool2d(3, (1, 2)),
            *_conv2d(w192, w384),
            *_conv2d(w384, w256),
            *_conv2d(w256, w256), nn.MaxPool2d(3, 2),
            *_conv2d(w256, w512, (5, 4), 0),
        )  # fmt: skip
        last = _cells(side)
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, w96, (5, 7, 7), 2, 0), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(w96, w256, (1, 5, 5), 2, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3d(w256, w256, (1, 3, 3), 1, 1),
            *_conv3d(w256, w256, (1, 3, 3), 1, 1),
            *_conv3d(w256, w256, (1, 3, 3), 1, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3d(w256, w512, (1, last, last), 1, 0),
        )  # fmt: skip
        self.netfcaud, self.netfclip = _head(w512, embedding), _head(w512, embedding)

    @classmethod
    def from_public(cls, path: str | Path) -> "SyncNet":
        """The published weights, a file such as ``syncnet_v2.model``.

        Raises:
            InputError: there is no such file, or it does not hold these weights.
        """
        try:
            given = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise InputError(f"{path} cannot be read as SyncNet's weights ({str(error).splitlines()[0]}).") from None
        model = cls()
        wanted = model.state_dict()
        counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # which old files lack
        if not isinstance(given, dict) or (missing := wanted.keys() - counters - given.keys()):
            raise InputError(f"{path} does not hold SyncNet's weights: it lacks {sorted(missing)[0]}.")
        for name in wanted.keys() & given.keys():
            if given[name].shape != wanted[name].shape:
                found = f"{tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
                raise InputError(f"{path} does not hold SyncNet's weights: {name} is {found}.")
        model.load_state_dict({name: given[name] for name in wanted.keys() & given.keys()}, strict=False)
        return model.eval()

    def embed_faces(self, faces_BFHWC: Tensor) -> Tensor:
        """Embeddings of every window of five frames [B, F - 4, D]; face crops uint8 RGB [B, F, H, W, 3].

        Beyond the first convolution nothing reaches over time, so that one pass serves all windows of a clip.
        """
        return self.embed_pictures(self.crop(faces_BFHWC))

    def embed_pictures(self, pictures_B3FHW: Tensor) -> Tensor:
        """Embeddings of every window of five frames [B, F - 4, D] of what `crop` made of the faces."""
        pictures = pictures_B3FHW.to(self.dtype)
        if self.config.normalise:
            std, mean = torch.std_mean(pictures, dim=(1, 3, 4), keepdim=True)
            pictures = (pictures - mean) / (std + 8)
        else:
            pictures = pictures.flip(1)
        hidden_BCN = self.netcnnlip(pictures).flatten(2)
        return self._embed(self.netfclip, hidden_BCN.transpose(1, 2))

    def embed_clip(self, faces_FHWC: Tensor) -> Tensor:
        """Embeddings [F - 4, D] of the face crops (uint8 RGB) of a clip of any length."""
        # In pieces, since the first layers hold fifty times what the frames do; a piece begins where a window does.
        starts = range(0, max(len(faces_FHWC) - WINDOW + 1, 1), 100)
        pieces = [faces_FHWC[None, at : at + 100 + WINDOW - 1] for at in starts]
        return torch.cat([self.embed_faces(piece)[0] for piece in pieces])

    def embed_audio(self, mfcc_BCM: Tensor) -> Tensor:
        """Embeddings of every window of 0.2 s, one per frame [B, N, D], of coefficients [B, 13, M] (`mfcc`)."""
        windows = mfcc_BCM.unfold(2, MFCC_WINDOW, MFCC_PER_FRAME).transpose(1, 2)  # B, N, 13, 20
        hidden = self.netcnnaud(windows.flatten(0, 1).unsqueeze(1).to(self.dtype)).flatten(1)
        return self._embed(self.netfcaud, hidden.unflatten(0, windows.shape[:2]))

    def crop(self, faces_BFHWC: Tensor) -> Tensor:
        """The region of face crops in the network's own size: float [B, 3, F, side, side], 0 … 255."""
        height, width = faces_BFHWC.shape[2:4]
        left, top, right, bottom = (
            round(share * size) for share, size in zip(self.config.region, 2 * (width, height), strict=True)
        )
        frames = faces_BFHWC[:, :, top:bottom, left:right].permute(0, 1, 4, 2, 3).float()
        side = self.config.side
        if frames.shape[-2:] != (side, side):
            flat = F.interpolate(frames.flatten(0, 1), (side, side), mode="bilinear", antialias=True)
            frames = flat.unflatten(0, frames.shape[:2])
        return frames.transpose(1, 2)

    @torch.no_grad()
    def offset_and_confidence(self, faces_FHWC: np.ndarray, audio_n: np.ndarray, shifts: int = 15) -> Sync:
        """How well lips and sound agree, and at which offset best.

        Args:
            faces_FHWC: uint8 RGB face crops at 25 frames per second (`face_crops`).
            audio_n: mono float sound at 16 kHz that begins with the first frame.
            shifts: how many frames the sound is moved either way.

        Raises:
            ValueError: the clip is shorter than six frames.
        """
        frames = min(len(faces_FHWC), int(len(audio_n) / SAMPLE_RATE * FRAMES_PER_SECOND + 1e-6))
        windows = frames - WINDOW
        if windows < 1:
            raise ValueError(f"a sync expert needs at least {WINDOW + 1} frames with their sound, not {frames}")
        faces = torch.from_numpy(np.ascontiguousarray(faces_FHWC[:frames])).to(self.device)
        lips_ND = self.embed_clip(faces)[:windows].float()
        sound_ND = self.embed_audio(torch.from_numpy(mfcc(audio_n))[None].to(self.device))[0, :windows].float()
        return self.compare(lips_ND, sound_ND, shifts)

    def compare(self, lips_ND: Tensor, sound_ND: Tensor, shifts: int = 15) -> Sync:
        """What embeddings of the same windows say, one per frame."""
        windows = min(len(lips_ND), len(sound_ND))
        padded = F.pad(sound_ND[:windows], (0, 0, shifts, shifts))
        shifted_NSD = padded.unfold(0, 2 * shifts + 1, 1).transpose(1, 2)
        distances_NS = F.pairwise_distance(lips_ND[:windows, None], shifted_NSD).cpu()
        if not self.config.zero_edges:
            place = torch.arange(windows)[:, None] + torch.arange(-shifts, shifts + 1)
            distances_NS = distances_NS.masked_fill((place < 0) | (place >= windows), torch.nan)
        distances_S = distances_NS.nanmean(0).nan_to_num(torch.inf)
        best = int(distances_S.argmin())
        known = distances_S[distances_S.isfinite()]
        return Sync(
            best - shifts, float(known.median() - distances_S[best]), float(distances_S[best]), distances_S.numpy()
        )

    def _embed(self, head: nn.Module, hidden_BNC: Tensor) -> Tensor:
        embedded = head(hidden_BNC.flatten(0, 1)).unflatten(0, hidden_BNC.shape[:2])
        return F.normalize(embedded, dim=-1) if self.config.normalise else embedded


@cache
def load_sync_expert() -> SyncNet:
    """Our own sync expert (`OURS`).

    Raises:
        InputError: this installation has no weights of it.
    """
    folder = bundled("weights/sync-expert")
    if not (folder / "config.json").exists():
        raise InputError(
            "No sync expert ships with this installation: give the published syncnet_v2.model, or train one with "
            "`skyreels-audio train recipes/syncnet.yaml`."
        )
    model: Any = SyncNet.from_pretrained(folder, torch_dtype=torch.float32)
    return model.eval()


def face_crops(frames_FHWC: Iterable[np.ndarray], boxes_F4: np.ndarray, side: int = 224) -> np.ndarray:
    """Square crops around a face as SyncNet's own pipeline cuts them (`face_squares`): uint8 [F, side, side, 3].

    What is outside of the picture is grey (110). Raises ValueError if no frame has a box.
    """
    from PIL import Image

    crops = []
    for frame, square in zip(frames_FHWC, face_squares(boxes_F4), strict=True):
        left, top, right, bottom = (round(edge) for edge in square)
        cut = Image.new("RGB", (right - left, bottom - top), (110, 110, 110))
        cut.paste(Image.fromarray(frame), (-left, -top))
        crops.append(np.asarray(cut.resize((side, side), Image.Resampling.BILINEAR)))
    return np.stack(crops)


def face_squares(boxes_F4: np.ndarray) -> np.ndarray:
    """Squares around a face: left, top, right, bottom [F, 4].

    The square's centre and size follow the box's middle and height, steadied by a median over 13 frames; it reaches
    from the box's top to `MARGIN` half heights below it on both counts. Frames without a box (NaN) take their
    neighbours'. Raises ValueError if no frame has one.
    """
    from scipy.ndimage import median_filter

    boxes = np.asarray(boxes_F4, np.float64)
    seen = np.isfinite(boxes).all(1)
    if not seen.any():
        raise ValueError("no frame has the box of a face")
    index = np.arange(len(boxes))
    boxes = np.stack([np.interp(index, index[seen], boxes[seen, k]) for k in range(4)], 1)
    half = median_filter((boxes[:, 2:] - boxes[:, :2]).max(1) / 2, 13, mode="nearest")
    x, y = (median_filter((boxes[:, k] + boxes[:, k + 2]) / 2, 13, mode="nearest") for k in (0, 1))
    return np.stack([x - half * (1 + MARGIN), y - half, x + half * (1 + MARGIN), y + half * (1 + 2 * MARGIN)], 1)


def mfcc(audio_n: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    """13 mel-frequency cepstral coefficients per 10 ms, float32 [13, M], as SyncNet was trained on them.

    Of 16-bit samples: pre-emphasis of 0.97, rectangular windows of 25 ms, 26 mel filters on 512 frequencies, logarithm,
    orthonormal DCT-II, liftering by 22; the first coefficient is replaced by the logarithm of the window's energy
    (Davis & Mermelstein 1980, in the variant of the python_speech_features library).
    """
    from scipy.fft import dct

    samples = np.trunc(np.clip(np.asarray(audio_n, np.float64), -1, 1) * 32767)
    samples = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    size, hop, bins = round(0.025 * rate), round(0.01 * rate), 512
    count = 1 + max(-(-(len(samples) - size) // hop), 0)
    padded = np.pad(samples, (0, max((count - 1) * hop + size - len(samples), 0)))
    frames_MK = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:count]
    power_MK = np.abs(np.fft.rfft(frames_MK, bins)) ** 2 / bins
    least = np.finfo(float).eps
    energy_M = np.maximum(power_MK.sum(1), least)
    bands_MB = np.maximum(power_MK @ _mel_filters(26, bins, rate).T, least)
    cepstra_MC = np.asarray(dct(np.log(bands_MB), type=2, axis=1, norm="ortho"))[:, :COEFFICIENTS]
    cepstra_MC = cepstra_MC * (1 + 11 * np.sin(np.pi * np.arange(COEFFICIENTS) / 22))
    cepstra_MC[:, 0] = np.log(energy_M)
    return np.ascontiguousarray(cepstra_MC.T, np.float32)


def _mel_filters(count: int, bins: int, rate: int) -> np.ndarray:
    """Triangles whose corners lie evenly in mel, on whole frequencies: [count, bins / 2 + 1]."""
    mel = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), count + 2)
    corners = np.floor((bins + 1) * 700 * (10 ** (mel / 2595) - 1) / rate)
    frequency = np.arange(bins // 2 + 1)
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (frequency - left) / np.maximum(middle - left, 1)
    falling = (right - frequency) / np.maximum(right - middle, 1)
    return np.where(frequency < middle, rising, falling) * ((frequency >= left) & (frequency < right))


def _conv2d(before: int, after: int, kernel: Any = 3, padding: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, padding=padding), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


def _conv3d(before: int, after: int, kernel: tuple[int, int, int], stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.Conv3d(before, after, kernel, (1, stride, stride), (0, padding, padding))
    return [convolution, nn.BatchNorm3d(after), nn.ReLU(inplace=True)]


def _head(width: int, embedding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, embedding)
    )


def _cells(side: int) -> int:
    """Side of what the last convolution of the lip tower covers: 6 of 224 pixels."""
    for kernel, padding in ((7, 0), (3, 0), (5, 1), (3, 1), (3, 0)):  # all of stride 2
        side = (side + 2 * padding - kernel) // 2 + 1
    return side
