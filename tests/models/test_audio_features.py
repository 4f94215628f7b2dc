import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from skyreels_audio.models import audio_features
from skyreels_audio.models.audio_features import AudioEncoder, encode_whisper, trim_whisper, voice_activity

EXTRACTOR = WhisperFeatureExtractor()


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    """Whisper reads 30 s at a time; this one 9 s, so that long audio is cheap."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=6, encoder_attention_heads=2, encoder_ffn_dim=32, max_source_positions=450
    )
    encoder = WhisperEncoder(config).eval()
    torch.nn.init.normal_(encoder.layer_norm.weight, 1.0, 0.3)
    return encoder


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise in syllables of changing loudness."""
    rng = np.random.default_rng(seed)
    count = int(seconds * 16000)
    loudness = np.repeat(rng.random(count // 3200 + 1) ** 2, 3200)[:count]
    return (0.3 * loudness * rng.standard_normal(count)).astype(np.float32)


@pytest.mark.parametrize(("samples", "tokens"), [(1, 1), (320, 1), (321, 2), (16000, 50), (200001, 626)])
def test_fifty_tokens_a_second_rounded_up(encoder, samples, tokens):
    encoded = encode_whisper(np.zeros(samples, np.float32), EXTRACTOR, encoder)
    assert encoded.shape == (tokens, 16) and encoded.dtype == torch.float32 and encoded.isfinite().all()


def test_short_audio_is_what_whisper_reads(encoder):
    """Up to the encoder's 9 s: transformers' own spectrogram, padded with silence; layers normalised and averaged."""
    voice = speech(5)
    features = EXTRACTOR(voice, sampling_rate=16000, max_length=9 * 16000, return_tensors="pt").input_features
    with torch.no_grad():
        states = encoder(features, output_hidden_states=True).hidden_states
    expected = torch.stack([torch.nn.functional.layer_norm(states[i], (16,)) for i in (2, 5)]).mean(dim=0)
    torch.testing.assert_close(
        encode_whisper(voice, EXTRACTOR, encoder, (2, 5)), expected[0, :250], atol=1e-4, rtol=1e-4
    )


def test_a_trimmed_encoder_gives_the_same_tokens_and_survives_saving(encoder, tmp_path):
    trimmed, voice = trim_whisper(encoder, layers=4), speech(4)
    whole = encode_whisper(voice, EXTRACTOR, encoder, (3, 4))
    torch.testing.assert_close(encode_whisper(voice, EXTRACTOR, trimmed), whole, atol=1e-3, rtol=1e-3)
    trimmed.save_pretrained(tmp_path)
    loaded = AudioEncoder.from_pretrained(tmp_path)
    assert len(loaded.layers) == 4
    assert torch.equal(encode_whisper(voice, EXTRACTOR, loaded), encode_whisper(voice, EXTRACTOR, trimmed))
    third_only = encode_whisper(voice, EXTRACTOR, trim_whisper(encoder, 4, feature_layers=(3,)))
    torch.testing.assert_close(third_only, encode_whisper(voice, EXTRACTOR, encoder, (3,)), atol=1e-3, rtol=1e-3)


def test_chunks_are_encoded_alike_whatever_else_is_loud(encoder):
    """One spectrogram for all: a shout far away changes the clipping floor of every chunk, not of its own only."""
    quiet = 0.001 * speech(30)
    shout = quiet.copy()
    shout[-16000:] += speech(1)
    tokens = encode_whisper(shout, EXTRACTOR, encoder)[:100]
    floor_raised = encode_whisper(np.concatenate([quiet[: 20 * 16000], shout[-16000:]]), EXTRACTOR, encoder)[:100]
    torch.testing.assert_close(tokens, floor_raised, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("piece", [3200, 16000, 48000])
def test_the_spectrogram_does_not_depend_on_its_pieces(encoder, piece, monkeypatch):
    sound = speech(10) * np.linspace(0, 1, 160000, dtype=np.float32) ** 4
    whole = encode_whisper(sound, EXTRACTOR, encoder)
    monkeypatch.setattr(audio_features, "PIECE_SAMPLES", piece)
    torch.testing.assert_close(encode_whisper(sound, EXTRACTOR, encoder), whole, atol=1e-4, rtol=1e-4)


def test_seams_do_not_show(encoder):
    """Tokens around the fades change from one to the next as much as tokens elsewhere."""
    tokens = encode_whisper(speech(24), EXTRACTOR, encoder)  # chunks 0 … 9, 3 … 12, …
    steps = (tokens[1:] - tokens[:-1]).norm(dim=1)
    edges = torch.tensor([150, 300, 450, 600, 750])
    around = torch.stack([steps[edge - 3 : edge + 3].max() for edge in edges])
    assert around.max() <= steps.quantile(0.99)


def test_voice_activity_is_high_in_speech_and_zero_in_pauses():
    voice = np.concatenate(
        [speech(2) + 0.05 * np.sin(np.arange(32000) / 10, dtype=np.float32), np.zeros(16000, np.float32)]
    )
    voice += 1e-5 * np.random.default_rng(0).standard_normal(len(voice)).astype(np.float32)
    activity = voice_activity(voice)
    assert activity.shape == (150,)
    assert activity[:98].min() > 0.9 and activity[102:].max() == 0
    assert not voice_activity(voice * np.float32(1e-5)).any()
    torch.testing.assert_close(voice_activity(voice * np.float32(0.25)), activity, atol=0.05, rtol=0)
