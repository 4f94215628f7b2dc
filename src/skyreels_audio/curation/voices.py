"""Whose voice is it, moment by moment: the speaker encoder of the package Resemblyzer, read without its dependencies.

Source: Wan et al., "Generalized end-to-end loss for speaker verification", 2018; weights Apache-2.0 (Resemble AI).
"""

from pathlib import Path

import numpy as np

from skyreels_audio.curation.footage import RATE

HOP = RATE // 100
MELS = 40
LONGEST, SHORTEST = 120, 40  # hops of a window: half of the speech; the encoder was trained on 160, clips are short
EVERY = 10  # hops between windows
LOUD = 25  # dB below its loud moments, down to which sound is a voice: a detector of speech loses much of a short turn


class VoiceEncoder:
    """Three layers of LSTM over mel spectra → an embedding on the unit sphere."""

    def __init__(self) -> None:
        from importlib.util import find_spec

        import torch
        from transformers.audio_utils import mel_filter_bank, window_function

        package = find_spec("resemblyzer")  # found, not imported: its import needs packages that only it uses
        assert package is not None and package.submodule_search_locations
        path = Path(package.submodule_search_locations[0]) / "pretrained.pt"
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        self._lstm, self._linear = torch.nn.LSTM(MELS, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
        for module, prefix in ((self._lstm, "lstm."), (self._linear, "linear.")):
            module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self._filters = mel_filter_bank(201, MELS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
        self._window = window_function(400, "hann")

    def mel(self, sound_n: np.ndarray) -> np.ndarray:
        """Mel spectra [T, MELS] of the sound, brought to the level of the encoder's training."""
        from transformers.audio_utils import spectrogram

        loud_n = sound_n * (10 ** (-30 / 20) / max(float(np.sqrt(np.square(sound_n).mean())), 1e-6))
        return spectrogram(
            loud_n, self._window, 400, HOP, fft_length=400, power=2.0, center=True, mel_filters=self._filters
        ).T.astype(np.float32)

    def embed(self, mels_WTM: np.ndarray) -> np.ndarray:
        """Embeddings [W, 256] of windows of mel spectra."""
        import torch

        with torch.inference_mode():
            _, (hidden, _) = self._lstm(torch.from_numpy(mels_WTM))
            raw_WD = torch.relu(self._linear(hidden[-1]))
            return torch.nn.functional.normalize(raw_WD, dim=1).numpy()

    def diversity(self, sound_n: np.ndarray) -> float | None:
        """`turn_distance` of what is spoken, pauses left out; None with less than two of the shortest windows."""
        from scipy.ndimage import uniform_filter1d

        if len(sound_n) < 2 * SHORTEST * HOP:
            return None
        mel_TM = self.mel(sound_n)
        level_T = 10 * np.log10(uniform_filter1d(mel_TM.sum(axis=1), 9) + 1e-12)
        spoken_TM = mel_TM[level_T > np.percentile(level_T, 95) - LOUD]
        length = min(LONGEST, len(spoken_TM) // 2)
        if length < SHORTEST:
            return None
        starts = range(0, len(spoken_TM) - length + 1, min(EVERY, length // 6))
        return turn_distance(self.embed(np.stack([spoken_TM[start : start + length] for start in starts])))


def turn_distance(embeddings_WD: np.ndarray) -> float:
    """Cosine distance of the means before and after the moment at which they are farthest apart: speakers take turns.

    The two least alike windows would do worse: one voice has those too.
    """
    before_WD = embeddings_WD.cumsum(axis=0)
    after_WD = before_WD[-1] - before_WD[:-1]
    before_WD = before_WD[:-1]
    lengths_W = np.linalg.norm(before_WD, axis=1) * np.linalg.norm(after_WD, axis=1)
    return float(1 - ((before_WD * after_WD).sum(axis=1) / lengths_W).min())
