"""Stage 7: do lips and voice go together, how far are they apart, and does that distance stay.

Two witnesses are asked at every offset, and their agreement is added up. One predicts from the voice how far lips open
and how wide they are (a linear map of mel spectra, fitted by ``tools/fit_voice_lips.py``) and correlates that with what
landmarks show. The other is our sync expert, which looks at the pixels of the mouth.

Legend: F frames at 25 per second, C lip curves (height, width), D width of an embedding, A offsets, B drifts,
M mel bands.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import PrivateAttr

from skyreels_audio.curation.footage import FPS, RATE, footage
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.stage import Stage
from skyreels_audio.media import InputError

MAX_OFFSET = 15  # frames
SAMPLES = RATE // FPS  # of sound in a frame
BOTH = "landmarks and sync expert (ours)"  # the name of the offline method in rows and manifests
LEAST = 25  # frames of a clip in which offsets can be told
MELS = 24
CONTEXT = 5  # frames of sound before and after the one that is predicted
OFFSETS = np.arange(-MAX_OFFSET, MAX_OFFSET + 1)
DRIFTS = np.arange(-12, 13)  # frames by which an offset may change during the clip; more is chance
EXPERT_SHARE = 0.9  # of the agreement; with GAIN and the recipe's limit chosen on half A of benchmarks/curation.py
WANDERING = 4  # frames by which an offset that wanders changes at least: it is known to one or two
GAIN = 0.04  # by which a changing offset must explain lips better than a constant one before it counts
LEAST_AGREEMENT = 0.05  # below it there is nothing to gain on


class Synchrony(Stage):
    """Offset, confidence, and whether the offset wanders.

    method: "both", landmarks and our sync expert, whose confidence is their agreement at the best offset; or "expert"
    alone, the published SyncNet if ``weights`` names its file (``syncnet_v2.model``), else our own. Confidences are on
    scales of their own.
    """

    name: ClassVar[str] = "synchrony"
    version: ClassVar[int] = 6
    method: Literal["both", "expert"] = "both"
    weights: Path | None = None
    _expert: Any = PrivateAttr(None)

    def check(self) -> None:
        if self.method == "both" and self.weights is not None:
            raise InputError("synchrony: weights are those of an expert that is asked alone; say method: expert.")
        self.setup()  # small, and it says itself what is missing

    def setup(self) -> None:
        from skyreels_audio.models.syncnet import SyncNet, load_sync_expert

        expert: Any = load_sync_expert() if self.weights is None else SyncNet.from_public(self.weights)
        self._expert = expert.to("cuda" if self.gpus else "cpu")

    def __call__(self, clip: Clip) -> Clip:
        if self.method == "expert":
            return self._by_expert(clip)
        lips_FC = lip_motion(clip)
        if lips_FC is None or clip.boxes is None or not clip.has_audio or len(lips_FC) < LEAST:
            return replace(clip, sync_method=BOTH)
        by_landmarks_BA = agreement(predict_lips(voice_features(footage(clip).sound_n, len(lips_FC))), lips_FC)
        curves_BA = (1 - EXPERT_SHARE) * by_landmarks_BA + EXPERT_SHARE * along_paths(*self._embeddings(clip))
        constant_A = curves_BA[len(DRIFTS) // 2]
        best = int(constant_A.argmax())
        wandering_B = np.where(np.abs(DRIFTS) >= WANDERING, curves_BA.max(axis=1), -np.inf)
        gain = float(wandering_B.max() / max(constant_A[best], LEAST_AGREEMENT)) - 1
        return replace(
            clip,
            sync_method=BOTH,
            sync_confidence=float(constant_A[best]),
            sync_offset=int(OFFSETS[best]),
            sync_wander=float(abs(DRIFTS[wandering_B.argmax()])) if gain >= GAIN else 0.0,
        )

    def _embeddings(self, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        """Of sound and of lips, unit vectors, each [F - 4 or so, D]."""
        import torch

        from skyreels_audio.models.syncnet import mfcc

        faces_FHWC, sound_n = _faces(clip), footage(clip).sound_n
        with torch.no_grad():
            lips = self._expert.embed_clip(torch.from_numpy(faces_FHWC).to(self._expert.device))
            sound = self._expert.embed_audio(torch.from_numpy(mfcc(sound_n))[None].to(self._expert.device))[0]
        return sound.float().cpu().numpy(), lips.float().cpu().numpy()

    def _by_expert(self, clip: Clip) -> Clip:
        """What the expert says of the clip; how far its halves are apart is what the offset wanders."""
        from skyreels_audio.models.syncnet import OURS

        name = OURS if self.weights is None else self.weights.name
        shown = footage(clip)
        frames = len(shown.frames_FHWC)
        if clip.boxes is None or not np.isfinite(clip.boxes).any() or not clip.has_audio or frames < LEAST:
            return replace(clip, sync_method=name)
        faces_FHWC = _faces(clip)
        whole = self._expert.offset_and_confidence(faces_FHWC, shown.sound_n, MAX_OFFSET)
        half = frames // 2
        parts = [
            self._expert.offset_and_confidence(
                faces_FHWC[part], shown.sound_n[part.start * SAMPLES : part.stop * SAMPLES]
            )
            for part in (slice(0, half), slice(half, frames))
        ]
        return replace(
            clip,
            sync_method=name,
            sync_confidence=whole.confidence,
            sync_offset=whole.offset,
            sync_wander=float(abs(parts[0].offset - parts[1].offset)) if half > 2 * MAX_OFFSET else 0.0,
        )


def _faces(clip: Clip) -> np.ndarray:
    """Crops of the main face as sync experts see them."""
    from skyreels_audio.models.syncnet import face_crops

    assert clip.boxes is not None
    frames_FHWC = footage(clip).frames_FHWC
    scale = frames_FHWC.shape[1] / (clip.height or frames_FHWC.shape[1])
    return face_crops(frames_FHWC, clip.boxes.reshape(-1, 4) * scale)


def lip_motion(clip: Clip) -> np.ndarray | None:
    """Height and width of the mouth over the face's height, as deviations from their own drift: [F, 2]; None unseen."""
    from scipy.ndimage import gaussian_filter1d

    from skyreels_audio.faces.landmarks import face_height, lip_aperture

    if clip.landmarks is None:
        return None
    points_FN2 = clip.landmarks.reshape(-1, 68, 2)
    seen = np.flatnonzero(np.isfinite(points_FN2).all(axis=(1, 2)))
    if len(seen) < LEAST:
        return None
    curves = [
        [lip_aperture(points), float(np.linalg.norm(points[54] - points[48])) / face_height(points)]
        for points in points_FN2[seen]
    ]
    every = np.arange(len(points_FN2))
    lips_FC = np.stack([np.interp(every, seen, curve) for curve in np.array(curves).T], axis=1)
    return lips_FC - gaussian_filter1d(lips_FC, FPS, axis=0)


def voice_features(sound_n: np.ndarray, frames: int) -> np.ndarray:
    """Log mel spectra around each of ``frames`` frames, levelled over the clip: [F, (2·CONTEXT + 1)·M]."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    filters = mel_filter_bank(201, MELS, 60.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    sound_n = np.pad(sound_n, (0, max(0, 400 - len(sound_n))))
    mel_MT = spectrogram(
        sound_n, window_function(400, "hann"), 400, RATE // 100, fft_length=400, power=2.0, mel_filters=filters
    )
    level_TM = np.log(np.maximum(mel_MT.T, 1e-10 + 1e-5 * mel_MT.max()))
    level_TM = (level_TM - level_TM.mean(axis=0)) / (level_TM.std() + 1e-6)
    at = np.clip(np.arange(frames)[:, None] * 4 + [0, 1, 2, 3], 0, len(level_TM) - 1)
    per_frame_FM = level_TM[at].mean(axis=1)
    around = np.clip(np.arange(frames)[:, None] + np.arange(-CONTEXT, CONTEXT + 1), 0, frames - 1)
    return per_frame_FM[around].reshape(frames, -1)


def predict_lips(features_FX: np.ndarray) -> np.ndarray:
    """The lip curves [F, C] that a voice lets expect."""
    return features_FX @ _weights()


def agreement(predicted_FC: np.ndarray, lips_FC: np.ndarray) -> np.ndarray:
    """The correlation of lip curves with those that the voice lets expect, `along_paths`."""
    return along_paths(_standardised(predicted_FC), _standardised(lips_FC))


def along_paths(heard_FD: np.ndarray, seen_FD: np.ndarray) -> np.ndarray:
    """How lips agree with the voice if the sound is late by a + b·t frames, t from -½ to ½ over the clip: [B, A].

    Mean inner products over the frames that have both; rows are ``DRIFTS``, columns ``OFFSETS``.
    """
    count = min(len(heard_FD), len(seen_FD))
    at_F = np.arange(count)
    late_BAF = np.rint(OFFSETS[:, None] + DRIFTS[:, None, None] * (at_F / count - 0.5)).astype(int)
    heard_BAF = at_F + late_BAF
    inside_BAF = (heard_BAF >= 0) & (heard_BAF < count)
    products_BAF = (heard_FD[heard_BAF.clip(0, count - 1)] * seen_FD[:count]).sum(axis=-1)
    return np.where(inside_BAF, products_BAF, 0).sum(-1) / np.maximum(inside_BAF.sum(-1), count / 2)


def _standardised(curves_FC: np.ndarray) -> np.ndarray:
    """Curves whose inner product with themselves is 1 in the mean over frames."""
    return (curves_FC - curves_FC.mean(axis=0)) / (curves_FC.std(axis=0) + 1e-9) / curves_FC.shape[1] ** 0.5


@cache
def _weights() -> np.ndarray:
    with as_file(files("skyreels_audio.curation") / "assets" / "voice_lips.npy") as path:
        return np.load(path).astype(np.float32)
