"""Stage 7: do lips and voice go together, how far are they apart, and does that distance stay.

The offline method predicts from the voice how far lips open and how wide they are (a linear map of mel spectra, fitted
by ``tools/fit_voice_lips.py``) and correlates that with what landmarks show, at every offset.

Legend: F frames at 25 per second, C lip curves (height, width), A offsets, B drifts, M mel bands.
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

MAX_OFFSET = 15  # frames
SAMPLES = RATE // FPS  # of sound in a frame
LEAST = 25  # frames of a clip in which offsets can be told
MELS = 24
CONTEXT = 5  # frames of sound before and after the one that is predicted
OFFSETS = np.arange(-MAX_OFFSET, MAX_OFFSET + 1)
DRIFTS = np.arange(-16, 17)  # frames by which an offset may change during the clip
GAIN = 0.11  # by which a changing offset must explain lips better than a constant one before it counts
CERTAIN = 0.55  # a constant offset that agrees so well is constant: what gains on it is chance
LEAST_AGREEMENT = 0.05  # below it there is nothing to gain on


class Synchrony(Stage):
    """Offset, confidence, and whether the offset wanders.

    method: "landmarks", whose confidence is the correlation of lips and voice at the best offset, or "expert": a
    SyncNet, the published one if ``weights`` names its file (``syncnet_v2.model``), else our own. Confidences are on
    scales of their own.
    """

    name: ClassVar[str] = "synchrony"
    version: ClassVar[int] = 3
    method: Literal["landmarks", "expert"] = "landmarks"
    weights: Path | None = None
    _expert: Any = PrivateAttr(None)

    def check(self) -> None:
        if self.method == "expert":
            self.setup()  # small, and it says itself what is missing

    def setup(self) -> None:
        if self.method == "expert":
            from skyreels_audio.models.sync_expert import load_sync_expert
            from skyreels_audio.models.syncnet import SyncNet

            expert: Any = load_sync_expert() if self.weights is None else SyncNet.from_public(self.weights)
            self._expert = expert.to("cuda" if self.gpus else "cpu")

    def __call__(self, clip: Clip) -> Clip:
        if self.method == "expert":
            return self._by_expert(clip)
        lips_FC = lip_motion(clip)
        if lips_FC is None or not clip.has_audio or len(lips_FC) < LEAST:
            return replace(clip, sync_method=self.method)
        curves_BA = agreement(predict_lips(voice_features(footage(clip).sound_n, len(lips_FC))), lips_FC)
        constant_A = curves_BA[len(DRIFTS) // 2]
        best = int(constant_A.argmax())
        drifting_B = curves_BA.max(axis=1)
        gain = float(drifting_B.max() / max(constant_A[best], LEAST_AGREEMENT)) - 1
        wanders = gain >= GAIN and constant_A[best] < CERTAIN
        return replace(
            clip,
            sync_method=self.method,
            sync_confidence=float(constant_A[best]),
            sync_offset=int(OFFSETS[best]),
            sync_wander=float(abs(DRIFTS[drifting_B.argmax()])) if wanders else 0.0,
        )

    def _by_expert(self, clip: Clip) -> Clip:
        """What the expert says of the clip; how far its halves are apart is what the offset wanders."""
        from skyreels_audio.models.syncnet import OURS, face_crops

        name = OURS if self.weights is None else self.weights.name
        shown = footage(clip)
        frames = len(shown.frames_FHWC)
        if clip.boxes is None or not np.isfinite(clip.boxes).any() or not clip.has_audio or frames < LEAST:
            return replace(clip, sync_method=name)
        scale = shown.frames_FHWC.shape[1] / (clip.height or shown.frames_FHWC.shape[1])
        faces_FHWC = face_crops(shown.frames_FHWC, clip.boxes.reshape(-1, 4) * scale)
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
    """How lips agree with the voice if the sound is late by a + b·t frames, t from -½ to ½ over the clip: [B, A].

    Mean products of standardised curves over the frames that have both; rows are ``DRIFTS``, columns ``OFFSETS``.
    """
    voice_FC, seen_FC = _standardised(predicted_FC), _standardised(lips_FC)
    count = len(voice_FC)
    at_F = np.arange(count)
    late_BAF = np.rint(OFFSETS[:, None] + DRIFTS[:, None, None] * (at_F / count - 0.5)).astype(int)
    heard_BAF = at_F + late_BAF
    inside_BAF = (heard_BAF >= 0) & (heard_BAF < count)
    products_BAF = (voice_FC[heard_BAF.clip(0, count - 1)] * seen_FC).mean(axis=-1)
    return np.where(inside_BAF, products_BAF, 0).sum(-1) / np.maximum(inside_BAF.sum(-1), count / 2)


def _standardised(curves_FC: np.ndarray) -> np.ndarray:
    return (curves_FC - curves_FC.mean(axis=0)) / (curves_FC.std(axis=0) + 1e-9)


@cache
def _weights() -> np.ndarray:
    with as_file(files("skyreels_audio.curation") / "assets" / "voice_lips.npy") as path:
        return np.load(path).astype(np.float32)
