"""Waveform → audio features, for audio of any length: Whisper tokens for the paper's audio branch, 50 per second;
wav2vec 2.0 features for public models.

Shapes: n samples (16 kHz mono), M mel bands, A audio tokens, D width of the features.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, WhisperConfig, WhisperFeatureExtractor  # noqa: F401
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from skyreels_audio.media import SAMPLE_RATE
from skyreels_audio.models.rope import SAMPLES_PER_TOKEN, TOKENS_PER_SECOND, token_positions
from skyreels_audio.models.windowed_audio_attention import FrameWindow

FeatureRounding = Literal["ceil", "floor"]

FEATURE_LAYERS = (3, 4)  # of whisper-base: what lips need is strongest here (linear probe to the jaw curve, r = 0.92)
OVERLAP_SECONDS = 6.0
SILENCE_DB = -70.0
PIECE_SAMPLES = 60 * SAMPLE_RATE
LOUDNESS = -23.0  # LUFS, to which the MultiTalk family brings every voice
LOUDNESS_BLOCK_SECONDS = 0.4  # the shortest sound that has a loudness (ITU-R BS.1770)


class AudioEncoder(WhisperEncoder):
    """Whisper's encoder, in a module where a diffusers pipeline finds it (and ``PreTrainedModel``, how to load it)."""


@torch.no_grad()
def encode_audio_features(
    waveform_n: np.ndarray | Tensor,
    feature_extractor: Any,
    encoder: Any,
    frame_window: FrameWindow | None,
    fps: float,
    rounding: FeatureRounding = "ceil",
) -> tuple[Tensor, Tensor]:
    """Audio features [A, D], float32, and their positions [A], float64, on the clock of `rope.py`.

    Args:
        waveform_n: mono samples at 16 kHz.
        feature_extractor, encoder: Whisper's, or wav2vec 2.0's for a model with a ``frame_window``.
        frame_window: of the transformer. "multitalk" reads the outputs of all layers, resampled to one per video frame;
            "fantasytalking" the last layer's, at the rate of wav2vec (just under 50 per second).
        fps: frames per second of the video.
        rounding: whether a last, partial frame has features of its own ("multitalk").
    """
    if frame_window is None:
        tokens_AD = encode_whisper(waveform_n, feature_extractor, encoder)
        return tokens_AD, token_positions(len(tokens_AD))
    samples = torch.as_tensor(waveform_n, dtype=torch.float32).flatten()
    frames = len(samples) / SAMPLE_RATE * fps
    if frame_window == "multitalk":
        samples = samples * loudness_gain(samples)
    # Shorter than the encoder's first receptive field is silence after the end.
    samples = F.pad(samples, (0, max(0, SAMPLE_RATE // 10 - len(samples))))
    values = feature_extractor(samples.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
    values = values.to(encoder.device, encoder.dtype)
    if frame_window == "fantasytalking":
        features_AD = encoder(values).last_hidden_state[0].float().cpu()
        spacing = TOKENS_PER_SECOND / fps * frames / len(features_AD)
    else:
        count = math.ceil(frames - 1e-6) if rounding == "ceil" else max(1, math.floor(frames + 1e-6))
        features_AD = _encode_all_layers(values, encoder, count)
        spacing = TOKENS_PER_SECOND / fps
    return features_AD, torch.arange(len(features_AD), dtype=torch.float64) * spacing


def loudness_gain(samples_n: Tensor) -> float:
    """The factor that brings a voice to -23 LUFS (ITU-R BS.1770-4); 1 if it is silent or under 0.4 s."""
    import pyloudnorm

    if len(samples_n) < LOUDNESS_BLOCK_SECONDS * SAMPLE_RATE:
        return 1.0
    meter = pyloudnorm.Meter(SAMPLE_RATE, block_size=LOUDNESS_BLOCK_SECONDS)
    with np.errstate(divide="ignore"):  # silence has a loudness of -inf
        loudness = float(meter.integrated_loudness(samples_n.double().numpy()))
    return 10 ** ((LOUDNESS - loudness) / 20) if math.isfinite(loudness) else 1.0


@torch.no_grad()
def encode_whisper(
    waveform_n: np.ndarray | Tensor,
    feature_extractor: WhisperFeatureExtractor,
    encoder: WhisperEncoder,
    layers: tuple[int, ...] | None = None,
) -> Tensor:
    """Encode speech of any length as audio tokens [A, D], float32, A = ceil(50 · seconds).

    A token is the mean over ``layers`` of the encoder's hidden states, each layer-normalised (without gain or bias), so
    that every layer counts the same. Layer i is the output of the i-th encoder layer; by default the encoder's own
    ``config.feature_layers``, else layers 3 and 4.

    Whisper reads 30 s at a time, padded with silence when there is less: it never saw anything else in training. Longer
    audio is read in equal chunks that overlap by 6 s and are cross-faded there, so that a token near the edge of one
    chunk comes mostly from the chunk that has it in context. The spectrogram is made once, for the whole audio,
    because Whisper clips it 80 dB below its maximum: per chunk, one loud syllable would shift the floor of all others.

    Args:
        waveform_n: mono samples at 16 kHz in [-1, 1].
        feature_extractor: the log-mel spectrogram of the encoder.
        encoder: a Whisper encoder, whole or trimmed (``trim_whisper``).
        layers: which layers' outputs to average, 1-based.
    """
    layers = layers or tuple(getattr(encoder.config, "feature_layers", FEATURE_LAYERS))
    samples = torch.as_tensor(waveform_n, dtype=torch.float32).flatten()
    length = -(-samples.numel() // SAMPLES_PER_TOKEN)
    window = encoder.config.max_source_positions
    padding = max(length, window) * SAMPLES_PER_TOKEN - samples.numel()
    mel_MA2 = _log_mel(F.pad(samples, (0, padding)), feature_extractor)  # kept by nobody: of an hour it is 230 MB

    starts = _chunk_starts(length, window, int(OVERLAP_SECONDS * TOKENS_PER_SECOND))
    tokens_AD = torch.zeros(max(length, window), encoder.config.d_model)
    for start, previous in zip(starts, [None, *starts], strict=False):
        chunk_AD = _encode_chunk(mel_MA2[:, 2 * start : 2 * (start + window)], encoder, layers)
        shared = 0 if previous is None else previous + window - start
        fade = torch.ones(window, 1)
        fade[:shared, 0] = (torch.arange(shared) + 0.5) / max(shared, 1)
        tokens_AD[start : start + window] = torch.lerp(tokens_AD[start : start + window], chunk_AD, fade)
    return tokens_AD[:length]


def voice_activity(waveform_n: np.ndarray | Tensor, floor_db: float = -40.0, ramp_db: float = 10.0) -> Tensor:
    """How much of each audio token is voice: [A] in [0, 1], by loudness relative to the loud parts of the recording.

    0 at ``floor_db`` below the 95th percentile of loudness, or at -70 dB of full scale if that is more; 1 from
    ``ramp_db`` above. Loudness is the RMS over 60 ms, so that the closure of a plosive does not count as a pause.
    """
    samples = torch.as_tensor(waveform_n, dtype=torch.float32).flatten()
    samples = F.pad(samples, (0, -samples.numel() % SAMPLES_PER_TOKEN))
    power_A = samples.view(-1, SAMPLES_PER_TOKEN).square().mean(dim=1)
    power_A = F.avg_pool1d(power_A[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    loudness_A = 10 * torch.log10(power_A + 1e-10)
    quiet = (torch.quantile(loudness_A, 0.95) + floor_db).clamp(min=SILENCE_DB)
    return ((loudness_A - quiet) / ramp_db).clamp(0, 1)


def trim_whisper(
    encoder: WhisperEncoder, layers: int = 4, feature_layers: tuple[int, ...] | None = None
) -> AudioEncoder:
    """Return a copy of the encoder that ends after ``layers`` layers; its features are those of the whole one.

    The final layer norm belonged to the last layer. Its gain and bias are reset, which makes it the plain normalisation
    that ``encode_whisper`` applies to every layer anyway. ``feature_layers`` (by default the last two) become those
    that ``encode_whisper`` averages.
    """
    changes = {"encoder_layers": layers, "feature_layers": list(feature_layers or (layers - 1, layers))}
    trimmed = AudioEncoder(WhisperConfig(**encoder.config.to_dict() | changes))
    kept = trimmed.state_dict().keys()
    trimmed.load_state_dict({key: value for key, value in encoder.state_dict().items() if key in kept})
    torch.nn.init.ones_(trimmed.layer_norm.weight)
    torch.nn.init.zeros_(trimmed.layer_norm.bias)
    return trimmed.to(encoder.device, encoder.dtype).eval()  # pyright: ignore[reportCallIssue, reportArgumentType]


def _log_mel(samples_n: Tensor, feature_extractor: WhisperFeatureExtractor) -> Tensor:
    """Whisper's spectrogram of the whole audio [M, 2A], made a minute at a time: the Fourier transform is 20× larger.

    The extractor clips each piece 80 dB below its own maximum (2 in its units). Clipping below the maximum of all,
    which is no less, makes that the spectrogram of the whole.
    """
    margin = 4 * feature_extractor.hop_length  # a frame reaches 200 samples to either side
    pieces = []
    for start in range(0, len(samples_n), PIECE_SAMPLES):
        before = min(start, margin)
        piece = samples_n[start - before : start + PIECE_SAMPLES + margin].numpy()
        mel_MA2 = feature_extractor(
            piece, sampling_rate=SAMPLE_RATE, padding="do_not_pad", truncation=False, return_tensors="pt"
        ).input_features[0]
        first = before // feature_extractor.hop_length
        pieces.append(mel_MA2[:, first : first + PIECE_SAMPLES // feature_extractor.hop_length])
    mel_MA2 = torch.cat(pieces, dim=1)
    return mel_MA2.clamp(min=mel_MA2.max() - 2)


def _chunk_starts(length: int, window: int, overlap: int) -> list[int]:
    """Starts of equal chunks that cover [0, length) and overlap by at least ``overlap``; the last is shifted back."""
    last = max(length - window, 0)
    return [*range(0, last, window - overlap), last]


def _encode_chunk(mel_MA2: Tensor, encoder: WhisperEncoder, layers: tuple[int, ...]) -> Tensor:
    features = mel_MA2[None].to(encoder.device, encoder.dtype)
    hidden_states = encoder(features, output_hidden_states=True).hidden_states
    normalised = [F.layer_norm(hidden_states[i][0].float(), hidden_states[i].shape[-1:]) for i in layers]
    return torch.stack(normalised).mean(dim=0).cpu()


def _encode_all_layers(values_1n: Tensor, encoder: Any, count: int) -> Tensor:
    """Outputs of all layers of wav2vec 2.0 side by side [count, D], resampled in time before the first layer."""

    def resample(module: Any, arguments: Any, features_BDA: Tensor) -> Tensor:
        return F.interpolate(features_BDA, size=count, mode="linear", align_corners=True)

    hook = encoder.feature_extractor.register_forward_hook(resample)
    try:
        layers = encoder(values_1n, output_hidden_states=True).hidden_states[1:]
    finally:
        hook.remove()
    return torch.cat([layer_1AD[0] for layer_1AD in layers], dim=1).float().cpu()
