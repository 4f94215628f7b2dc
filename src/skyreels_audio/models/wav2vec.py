"""What a model hears of a voice: Whisper tokens for the paper's audio branch, wav2vec features for public models.

Shapes: n samples (16 kHz mono), A audio tokens, D width of the features.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skyreels_audio.models.audio import SAMPLE_RATE, encode_audio
from skyreels_audio.models.frame_audio import FrameWindow
from skyreels_audio.models.rope import TOKENS_PER_SECOND, token_positions

LOUDNESS = -23.0  # LUFS, to which the MultiTalk family brings every voice
BLOCK_SECONDS, BLOCK_STEP = 0.4, 0.25


@torch.no_grad()
def hear(
    waveform_n: np.ndarray | Tensor, feature_extractor: Any, encoder: Any, frame_window: FrameWindow | None, fps: float
) -> tuple[Tensor, Tensor]:
    """Audio features [A, D], float32, and their positions [A], float64, on the clock of `rope.py`.

    Args:
        waveform_n: mono samples at 16 kHz.
        feature_extractor, encoder: Whisper's, or wav2vec 2.0's for a model with a ``frame_window``.
        frame_window: of the transformer. "multitalk" reads the outputs of all layers, resampled to one per video frame;
            "fantasytalking" the last layer's, at the rate of wav2vec (just under 50 per second).
        fps: frames per second of the video.
    """
    if frame_window is None:
        tokens_AD = encode_audio(waveform_n, feature_extractor, encoder)
        return tokens_AD, token_positions(len(tokens_AD))
    samples = torch.as_tensor(waveform_n, dtype=torch.float32).flatten()
    frames = len(samples) / SAMPLE_RATE * fps
    multitalk = frame_window == "multitalk"
    if multitalk:
        samples = samples * loudness_gain(samples)
    # Shorter than the encoder's first receptive field is silence after the end.
    samples = F.pad(samples, (0, max(0, SAMPLE_RATE // 10 - len(samples))))
    values = feature_extractor(samples.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
    values = values.to(encoder.device, encoder.dtype)
    if not multitalk:
        features_AD = encoder(values).last_hidden_state[0].float().cpu()
        spacing = TOKENS_PER_SECOND / fps * frames / len(features_AD)
        return features_AD, torch.arange(len(features_AD), dtype=torch.float64) * spacing
    count = math.ceil(frames - 1e-6)

    def resample(module: Any, arguments: Any, features_BDA: Tensor) -> Tensor:
        return F.interpolate(features_BDA, size=count, mode="linear", align_corners=True)

    hook = encoder.feature_extractor.register_forward_hook(resample)
    try:
        layers = encoder(values, output_hidden_states=True).hidden_states[1:]
    finally:
        hook.remove()
    features_AD = torch.cat([layer_1AD[0] for layer_1AD in layers], dim=1).float().cpu()
    return features_AD, torch.arange(count, dtype=torch.float64) * (TOKENS_PER_SECOND / fps)


def loudness_gain(samples_n: Tensor) -> float:
    """The factor that brings a voice to -23 LUFS by the loudness of ITU-R BS.1770-4; 1 if it is silent or under 0.4 s.

    Two filters weigh frequencies as the ear does, mean powers are taken over blocks of 0.4 s that overlap by 75 %, and
    blocks that are silent, or 10 dB below the mean of those that are not, do not count.
    """
    from scipy.signal import lfilter

    weighted: np.ndarray = samples_n.double().numpy()
    for numerator, denominator in (high_shelf(1500.0, 4.0, 0.5**0.5), high_pass(38.0, 0.5)):
        weighted = np.asarray(lfilter(numerator, denominator, weighted))
    size = int(BLOCK_SECONDS * SAMPLE_RATE)
    blocks = round((len(weighted) - size) / (BLOCK_STEP * size)) + 1
    if len(weighted) < size:
        return 1.0
    starts = [int(i * BLOCK_STEP * size) for i in range(blocks)]
    power = np.array([np.sum(weighted[start : start + size] ** 2) / size for start in starts])

    def loudness(mean_power: Any) -> Any:
        return -0.691 + 10 * np.log10(np.maximum(mean_power, 1e-30))

    heard = loudness(power) >= -70
    if not heard.any():
        return 1.0
    heard &= loudness(power) > loudness(power[heard].mean()) - 10
    return float(10 ** ((LOUDNESS - loudness(power[heard].mean())) / 20))


def high_shelf(frequency: float, gain_db: float, quality: float) -> tuple[list[float], list[float]]:
    """Coefficients of a biquad that lifts what is above ``frequency`` (R. Bristow-Johnson, Audio EQ cookbook)."""
    gain, angle = 10 ** (gain_db / 40), 2 * math.pi * frequency / SAMPLE_RATE
    alpha, cos = math.sin(angle) / (2 * quality), math.cos(angle)
    root = 2 * math.sqrt(gain) * alpha
    numerator = [
        gain * ((gain + 1) + (gain - 1) * cos + root),
        -2 * gain * ((gain - 1) + (gain + 1) * cos),
        gain * ((gain + 1) + (gain - 1) * cos - root),
    ]
    denominator = [(gain + 1) - (gain - 1) * cos + root, 2 * ((gain - 1) - (gain + 1) * cos)]
    return numerator, [*denominator, (gain + 1) - (gain - 1) * cos - root]


def high_pass(frequency: float, quality: float) -> tuple[list[float], list[float]]:
    """Coefficients of a biquad that removes what is below ``frequency`` (same source)."""
    angle = 2 * math.pi * frequency / SAMPLE_RATE
    alpha, cos = math.sin(angle) / (2 * quality), math.cos(angle)
    return [(1 + cos) / 2, -(1 + cos), (1 + cos) / 2], [1 + alpha, -2 * cos, 1 - alpha]
