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

CEILING, LEVELS = 0.4, 16  # of the peak, from which a ceiling is looked for; steps from there to the peak
NOISE_WINDOW, NOISE_HOP = 512, 160  # of the spectrogram in which noise is looked for
NOISE_BANDS = 24
NOISE_BAND = 100, 7600  # Hz
QUIET = 10  # per cent of the time in which nothing but noise is heard in a band
SPEECH_BAND = 300, 3000  # Hz, where a voice has most of its energy
FALL = 45.0  # dB below the voice's peak level at which its band ends
WINDOW, HOP = 2048, 512  # of spectrograms
PARTIALS_WINDOW = 4096  # of that in which music is looked for: bins of 4 Hz
PARTIALS_BAND = 400, 4000  # Hz
PEAK = 6.0  # dB by which a partial stands out of what is around it
QUIETEST = -60.0  # dB against the loudest partial
STANDING, STANDING_SHARE = 0.35, 0.8  # seconds for which a partial stays, and the share of them in which it is seen


class Audio(Stage):
    """Speech by silero-vad, voices by Resemblyzer's speaker embeddings, loudness by pyloudnorm.

    whisper: a folder of a whole Whisper model in transformers' layout, which tells the language; without it
    ``language`` stays None.
    """

    name: ClassVar[str] = "audio"
    version: ClassVar[int] = 3
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
            clipping=clipping(sound_n),
            snr=snr(sound_n, spoken_n),
            bandwidth=bandwidth(sound_n),
            speech=float(spoken_n.mean()),
            language=self._language(sound_n),
            music=music(sound_n),
            speakers=self._voices.diversity(sound_n),
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


def clipping(sound_n: np.ndarray) -> float:
    """Share of samples piled up at a ceiling: the largest rise of the histogram of levels towards the peak.

    Louder is rarer in speech at any gain; what was cut off lies at one level, around which a codec or resampling
    scatters it.
    """
    level_n = np.abs(sound_n)
    peak = float(level_n.max(initial=0.0))
    if peak == 0:
        return 0.0
    count_L = np.histogram(level_n, np.linspace(CEILING * peak, peak, LEVELS + 1))[0]
    return float((count_L - np.minimum.accumulate(count_L)).max() / len(level_n))


def snr(sound_n: np.ndarray, spoken_n: np.ndarray) -> float | None:
    """dB of speech over noise, which is what every band keeps in its quietest tenth; None without speech.

    Bands are quiet between sounds and harmonics: a clip that has no pause has no more noise for that.
    Source: after Martin, "Noise power spectral density estimation based on optimal smoothing and minimum statistics",
    2001.
    """
    from scipy.ndimage import uniform_filter1d

    power_TK = _spectrogram(sound_n, NOISE_WINDOW, NOISE_HOP) ** 2
    spoken_T = spoken_n[NOISE_WINDOW // 2 :: NOISE_HOP][: len(power_TK)]
    if not spoken_T.any():
        return None
    edges = np.unique((np.geomspace(*NOISE_BAND, NOISE_BANDS + 1) * NOISE_WINDOW / RATE).round().astype(int))
    band_TB = uniform_filter1d(np.add.reduceat(power_TK[:, : edges[-1]], edges[:-1], axis=1), 5, axis=0)
    noise = float(np.percentile(band_TB, QUIET, axis=0).sum())
    heard = float(band_TB[: len(spoken_T)][spoken_T].sum(axis=1).mean())
    least = 1e-8 * heard + 1e-10  # 80 dB under the voice nothing matters
    return float(10 * np.log10(max(heard - noise, least) / (noise + least)))


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
    """How many partials stand: peaks of the spectrum that stay at their frequency for ``STANDING`` seconds, at a time.

    Harmonics of a voice glide, be it ever so monotonous: around 1 kHz they soon leave a band of 4 Hz. Those of
    instruments do not, and stay above a louder voice here and there. Percussion alone is not heard.
    Source: after Seyerlehner et al., "Automatic music detection in television productions", 2007.
    """
    from scipy.ndimage import maximum_filter1d, median_filter, uniform_filter1d

    around_n = np.pad(sound_n, PARTIALS_WINDOW // 2)
    level_TK = 20 * np.log10(_spectrogram(around_n, PARTIALS_WINDOW) + 1e-6)
    first, last = (hertz * PARTIALS_WINDOW // RATE for hertz in PARTIALS_BAND)
    loud_TK = level_TK > np.maximum(median_filter(level_TK, (1, 31)) + PEAK, level_TK.max() + QUIETEST)
    peaks_TK = loud_TK & (level_TK >= maximum_filter1d(level_TK, 3, axis=1))
    near_TK = maximum_filter1d(peaks_TK.astype(np.float32), 3, axis=1)  # a peak between two bins is in either
    stay_TK = uniform_filter1d(near_TK, round(STANDING * RATE / HOP), axis=0) >= STANDING_SHARE
    return float((peaks_TK & stay_TK)[:, first:last].sum(axis=1).mean())


def _spectrogram(sound_n: np.ndarray, window: int = WINDOW, hop: int = HOP) -> np.ndarray:
    """Magnitudes [T, K]."""
    padded_n = np.pad(sound_n, (0, max(0, window - len(sound_n))))
    windows_TN = np.lib.stride_tricks.sliding_window_view(padded_n, window)[::hop]
    return np.abs(np.fft.rfft(windows_TN * np.hanning(window).astype(np.float32), axis=1)).astype(np.float32)


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
