"""Whose voice is it, moment by moment: the speaker encoder of the package Resemblyzer, read without its dependencies.

Source: Wan et al., "Generalized end-to-end loss for speaker verification", 2018; weights Apache-2.0 (Resemble AI).
"""

from pathlib import Path

import numpy as np

from skyreels_audio.curation.footage import RATE

HOP = RATE // 100
MELS = 40
SECONDS = 1.2  # of a window; the encoder was trained on 1.6, clips are short
EVERY = 0.2  # seconds between windows
SPOKEN = 0.7  # least share of speech in a window that counts


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

    def embed(self, sound_n: np.ndarray, starts: list[int]) -> np.ndarray:
        """Embeddings [W, 256] of the windows of ``SECONDS`` that begin at these samples."""
        import torch
        from transformers.audio_utils import spectrogram

        loud_n = sound_n * (10 ** (-30 / 20) / max(float(np.sqrt(np.square(sound_n).mean())), 1e-6))
        mel_TM = spectrogram(
            loud_n, self._window, 400, HOP, fft_length=400, power=2.0, center=True, mel_filters=self._filters
        ).T.astype(np.float32)
        length = round(SECONDS * 100)
        mels_WTM = np.stack([mel_TM[start // HOP : start // HOP + length] for start in starts])
        with torch.inference_mode():
            _, (hidden, _) = self._lstm(torch.from_numpy(mels_WTM))
            raw_WD = torch.relu(self._linear(hidden[-1]))
            return torch.nn.functional.normalize(raw_WD, dim=1).numpy()

    def diversity(self, sound_n: np.ndarray, spoken_n: np.ndarray) -> float | None:
        """1 - cosine of the two groups that the windows fall into; None with less speech than two windows."""
        length = round(SECONDS * RATE)
        starts = range(0, len(sound_n) - length + 1, round(EVERY * RATE))
        starts = [start for start in starts if spoken_n[start : start + length].mean() >= SPOKEN]
        if len(starts) < 3:
            return None
        return group_distance(self.embed(sound_n, starts))


def group_distance(embeddings_WD: np.ndarray) -> float:
    """Cosine distance of the means of two groups, those nearer to either of the two least alike windows."""
    similar_WW = embeddings_WD @ embeddings_WD.T
    a, b = np.unravel_index(np.argmin(similar_WW), similar_WW.shape)
    first = similar_WW[a] >= similar_WW[b]
    means = [embeddings_WD[chosen].mean(axis=0) for chosen in (first, ~first)]
    means = [mean / np.linalg.norm(mean) for mean in means]
    return float(1 - means[0] @ means[1])
