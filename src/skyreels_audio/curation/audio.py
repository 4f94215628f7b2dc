"""Stage 6: the voice: is it loud and clean enough, is it speech, of one person, without music.

Legend: n samples at 16 kHz, W windows, T spectrogram frames, K frequency bins.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import PrivateAttr

from skyreels_audio.curation.footage import RATE, footage
from skyreels_audio.curation.schema import Clip
from skyreels_audio.curation.stage import Stage, need_folder, need_packages
from skyreels_audio.curation.voices import VoiceEncoder

FULL_SCALE = 0.985
FRAME = RATE // 50  # samples over which levels are taken
SPEECH_BAND = 300, 3000  # Hz, where a voice has most of its energy
FALL = 45.0  # dB below the voice's peak level at which its band ends
WINDOW, HOP = 2048, 512  # of the spectrogram in which music is looked for
STEADY = 21  # frames (0.67 s): a tone that lasts longer than half of it is not speech
BEATS = 0.25, 1.0  # seconds between beats


class Audio(Stage):
    """Speech by silero-vad, voices by Resemblyzer's speaker embeddings, loudness by pyloudnorm.

    whisper: a folder of a whole Whisper model in transformers' layout, which tells the language; without it
    ``language`` stays None.
    """

    name: ClassVar[str] = "audio"
    whisper: Path | None = None
    _vad: Any = PrivateAttr(None)
    _voices: Any = PrivateAttr(None)
    _whisper: Any = PrivateAttr(None)

    def check(self) -> None:
        need_packages(self.name, "silero_vad", "resemblyzer", "pyloudnorm")
        if self.whisper is not None:
            need_folder(self.name, self.whisper, "a Whisper model")

    def setup(self) -> None:
        from silero_vad import load_silero_vad

        self._vad, self._voices = load_silero_vad(), VoiceEncoder()
        if self.whisper is not None:
            from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

            model: Any = WhisperForConditionalGeneration.from_pretrained(self.whisper).eval()
            self._whisper = (
                WhisperFeatureExtractor.from_pretrained(self.whisper),
                model.to("cuda" if self.gpus else "cpu"),
            )

    def __call__(self, clip: Clip) -> Clip:
        if not clip.has_audio:
            return clip
        sound_n = footage(clip).sound_n
        spoken_n = self._spoken(sound_n)
        return replace(
            clip,
            loudness=loudness(sound_n),
            clipping=float((np.abs(sound_n) >= FULL_SCALE).mean()),
            snr=snr(sound_n, spoken_n),
            bandwidth=bandwidth(sound_n),
            speech=float(spoken_n.mean()),
            language=self._language(sound_n),
            music=music(sound_n),
            speakers=self._voices.diversity(sound_n, spoken_n),
            on_screen=_on_screen(clip, spoken_n),
        )

    def _spoken(self, sound_n: np.ndarray) -> np.ndarray:
        """True where there is speech: bool [n]."""
        import torch
        from silero_vad import get_speech_timestamps

        spoken_n = np.zeros(len(sound_n), bool)
        for stretch in get_speech_timestamps(torch.from_numpy(sound_n), self._vad, min_silence_duration_ms=200):
            spoken_n[stretch["start"] : stretch["end"]] = True
        return spoken_n

    def _language(self, sound_n: np.ndarray) -> str | None:
        """The language that Whisper's decoder finds most likely."""
        if self._whisper is None:
            return None
        import torch

        extractor, model = self._whisper
        features = extractor(sound_n, sampling_rate=RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            token = int(model.detect_language(features.to(model.device, model.dtype))[0])
        names = {number: name for name, number in model.generation_config.lang_to_id.items()}
        return names[token].strip("<|>")


def loudness(sound_n: np.ndarray) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4); -70 for silence or less than 0.4 s."""
    import pyloudnorm

    if len(sound_n) < 0.4 * RATE or not np.abs(sound_n).max() > 1e-5:
        return -70.0
    return max(-70.0, float(pyloudnorm.Meter(RATE).integrated_loudness(sound_n.astype(np.float64))))


def snr(sound_n: np.ndarray, spoken_n: np.ndarray) -> float | None:
    """dB of speech over what is left in the quietest tenth of the pauses, or of the clip; None without speech."""
    count = len(sound_n) // FRAME
    power_T = np.square(sound_n[: count * FRAME]).reshape(count, FRAME).mean(axis=1) + 1e-10
    spoken_T = spoken_n[: count * FRAME].reshape(count, FRAME).mean(axis=1) > 0.5
    if not spoken_T.any():
        return None
    pauses = power_T[~spoken_T] if (~spoken_T).sum() >= 10 else power_T
    return float(10 * np.log10(power_T[spoken_T].mean() / np.percentile(pauses, 10)))


def bandwidth(sound_n: np.ndarray) -> float:
    """Hz above which the long-term spectrum stays ``FALL`` dB below the voice's strongest band."""
    power_TK = _spectrogram(sound_n) ** 2
    loud = power_TK.sum(axis=1) >= np.percentile(power_TK.sum(axis=1), 50)
    level_K = 10 * np.log10(power_TK[loud].mean(axis=0) + 1e-12)
    level_K = np.convolve(level_K, np.ones(9) / 9, mode="same")
    hertz_K = np.arange(len(level_K)) * RATE / WINDOW
    peak = level_K[(hertz_K >= SPEECH_BAND[0]) & (hertz_K <= SPEECH_BAND[1])].max()
    above = np.flatnonzero(level_K > peak - FALL)
    return float(hertz_K[above[-1]]) if len(above) else 0.0


def music(sound_n: np.ndarray) -> float:
    """0 … 1: how much of the sound is tones that stand (voices glide), or how regular its beats are.

    Tones by median filtering along time against frequency (FitzGerald, "Harmonic/percussive separation using median
    filtering", 2010), beats by the autocorrelation of the onsets.
    """
    from scipy.ndimage import median_filter

    spectrum_TK = np.sqrt(_spectrogram(sound_n))  # compressed, so that a quiet accompaniment counts beside a loud voice
    if len(spectrum_TK) < STEADY:
        return 0.0
    standing_TK = median_filter(spectrum_TK, (STEADY, 1), mode="nearest")
    around_TK = median_filter(standing_TK, (1, 15), mode="nearest")
    tones = np.maximum(standing_TK - 1.5 * around_TK, 0).sum() / (spectrum_TK.sum() + 1e-6)
    onsets_T = np.maximum(np.diff(spectrum_TK, axis=0), 0).sum(axis=1)
    onsets_T = onsets_T - onsets_T.mean()
    energy = float(onsets_T @ onsets_T)
    low, high = (round(seconds * RATE / HOP) for seconds in BEATS)
    lags = [float(onsets_T[lag:] @ onsets_T[:-lag]) / energy for lag in range(low, high + 1)] if energy > 0 else [0.0]
    return float(min(1.0, 4 * tones + max(0.0, max(lags) - 0.35)))


def _spectrogram(sound_n: np.ndarray) -> np.ndarray:
    """Magnitudes [T, K]."""
    padded_n = np.pad(sound_n, (0, max(0, WINDOW - len(sound_n))))
    windows_TN = np.lib.stride_tricks.sliding_window_view(padded_n, WINDOW)[::HOP]
    return np.abs(np.fft.rfft(windows_TN * np.hanning(WINDOW).astype(np.float32), axis=1)).astype(np.float32)


def _on_screen(clip: Clip, spoken_n: np.ndarray) -> float | None:
    """Correlation of lip movement with speech; None where it is all speech or all silence, or no lips were followed."""
    from skyreels_audio.curation.synchrony import lip_motion

    lips_FC = lip_motion(clip)
    if lips_FC is None or not 0.05 < spoken_n.mean() < 0.95:
        return None
    count = len(lips_FC)
    spoken_F = np.array([part.mean() for part in np.array_split(spoken_n.astype(np.float32), count)])
    moving_F = np.abs(np.gradient(lips_FC[:, 0]))
    smooth = np.ones(7) / 7
    a, b = (np.convolve(curve, smooth, mode="same") for curve in (moving_F, spoken_F))
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-9 and b.std() > 1e-9 else 0.0
