"""Converted public models equal their authors' code, recorded side by side (tests/data/README.md)."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from public_audio import DATA, voice, weight
from safetensors.torch import save_file
from transformers import CLIPVisionModel, UMT5EncoderModel, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.models.audio_features import FeatureRounding, encode_audio_features, loudness_gain
from skyreels_audio.models.convert.audio_models import (
    audio_config,
    read_audio_weights,
)
from skyreels_audio.models.convert.encoders import convert_image_encoder, convert_text_encoder
from skyreels_audio.models.convert.tensors import write_shards
from skyreels_audio.models.convert.transformer import read_backbone, with_audio
from skyreels_audio.models.rope import latent_positions
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.models.windowed_audio_attention import fantasytalking_windows

RECORDED = np.load(DATA / "public_models.npz")
SHAPES = json.loads((DATA / "public_models.json").read_text())


def given(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32))


def checkpoint(model: str) -> dict[str, torch.Tensor]:
    return {name: weight(name, shape) for name, shape in SHAPES[model].items()}


def error(actual: torch.Tensor, recorded: str) -> float:
    expected = torch.from_numpy(RECORDED[recorded])
    return float((actual - expected).abs().max() / expected.abs().max())


def assemble(folder: Path, shards, config) -> SkyReelsAudioTransformer3DModel:
    write_shards(folder, "diffusion_pytorch_model", shards)
    (folder / "config.json").write_text(json.dumps(config))
    return SkyReelsAudioTransformer3DModel.from_pretrained(folder).eval()


def save_original_weights(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_heads": 2, "eps": 1e-6}))
    return folder


@pytest.fixture(scope="module")
def multitalk(tmp_path_factory) -> SkyReelsAudioTransformer3DModel:
    folder = tmp_path_factory.mktemp("multitalk")
    shards, config = read_backbone(save_original_weights(folder / "source", checkpoint("multitalk")))
    return assemble(folder / "out", *with_audio(shards, config, audio_config(shards[0], "MultiTalk"), {}))


@pytest.fixture(scope="module")
def fantasytalking(tmp_path_factory) -> SkyReelsAudioTransformer3DModel:
    folder = tmp_path_factory.mktemp("fantasytalking")
    parts: dict = {"proj_model": {}, "audio_processor": {}}
    for name, tensor in checkpoint("fantasytalking").items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    torch.save(parts, folder / "fantasytalking_model.ckpt")
    shards, config = read_backbone(save_original_weights(folder / "source", checkpoint("fantasytalking backbone")))
    extra = read_audio_weights(folder / "fantasytalking_model.ckpt")
    return assemble(folder / "out", *with_audio(shards, config, audio_config(extra, "FantasyTalking"), extra))


@torch.no_grad()
def velocity(model, latents: int, audio_AD, audio_positions_A, first: int = 0) -> torch.Tensor:
    return model(
        torch.cat([given("latents", 4, latents, 4, 4), given("y", 8, latents, 4, 4)])[None],
        torch.tensor([700.0]),
        given("text", 512, 16)[None],
        given("clip", 1, 257, 80),
        audio_hidden_states=audio_AD[None],
        audio_positions=audio_positions_A,
        video_positions=latent_positions(first + latents)[first:],
    ).sample[0]


@pytest.mark.parametrize(("recorded", "first"), [("multitalk first", 0), ("multitalk later", 3)])
def test_multitalk_velocities_are_the_authors(multitalk, recorded, first):
    audio_AD = given("multitalk audio", 40, 2, 3).flatten(1)
    positions = 2.0 * torch.arange(40, dtype=torch.float64)
    assert error(velocity(multitalk, 4, audio_AD, positions, first), recorded) <= 1e-5
    other = audio_AD.clone()
    other[4 * first + 5] += 1
    assert error(velocity(multitalk, 4, other, positions, first), recorded) > 1e-3


@torch.no_grad()
def test_multitalk_tokens_are_the_authors(multitalk):
    audio_1AD = given("multitalk audio", 40, 2, 3).flatten(1)[None]
    tokens = multitalk.audio_projector(audio_1AD, torch.tensor([-2]), torch.tensor([[-1, 3, 7]]))
    assert error(tokens[0].unflatten(0, (4, 32)), "multitalk tokens") <= 1e-5


def test_a_window_of_the_timeline_hears_what_the_whole_audio_says(multitalk):
    """What `Conditions.window` leaves of the audio is enough, and counted from the right frame."""
    audio_AD, latents = given("multitalk audio", 40, 2, 3).flatten(1), 9
    positions = 2.0 * torch.arange(40, dtype=torch.float64)
    conditions = Conditions(
        text_BSD=torch.zeros(1, 1, 1),
        null_text_BSD=torch.zeros(1, 1, 1),
        audio_BAD=audio_AD[None],
        audio_positions_A=positions,
        reference_BCTHW=torch.zeros(1, 4, latents, 1, 1),
        known_B4THW=torch.zeros(1, 4, latents, 1, 1),
        video_positions_T=latent_positions(latents),
        audio_reach=multitalk.audio_reach,
    ).window(3, 7)
    assert conditions.audio_BAD is not None and conditions.audio_BAD.shape[1] < 40
    heard = velocity(multitalk, 4, conditions.audio_BAD[0], conditions.audio_positions_A, first=3)
    assert error(heard, "multitalk later") <= 1e-5


@pytest.mark.parametrize(("recorded", "latents", "tokens"), [("a", 4, 27), ("b", 6, 44)])
def test_fantasytalking_velocities_are_the_authors(fantasytalking, recorded, latents, tokens):
    audio_AD = given(f"fantasytalking audio {recorded}", 1, tokens, 6)[0]
    positions = torch.arange(tokens, dtype=torch.float64) * 2 * (4 * latents - 3) / tokens
    assert error(velocity(fantasytalking, latents, audio_AD, positions), f"fantasytalking {recorded} 1") <= 1e-5
    # Zeros stand for no audio: the authors' null, in which the scale of the audio attention is zero.
    silent = velocity(fantasytalking, latents, torch.zeros_like(audio_AD), positions)
    assert error(silent, f"fantasytalking {recorded} 0") <= 1e-5


def test_fantasytalking_windows_are_the_authors():
    """For 128 pairs of frames and tokens; where a bound is a whole number, theirs may round it down by mistake."""
    rows, start = RECORDED["fantasytalking ranges"], 0
    exact = 0
    for frames, tokens in RECORDED["fantasytalking cases"].tolist():
        latents = (frames - 1) // 4 + 1
        expected = rows[start : start + 2 * latents].reshape(latents, 2)
        start += 2 * latents
        spacing = 2.0 * frames / tokens
        audio = torch.arange(tokens, dtype=torch.float64)[None] * spacing
        windows = torch.stack(fantasytalking_windows(audio, latent_positions(latents)[None]), dim=-1)[0].numpy()
        whole = [(4 * i - 1) * tokens % frames == 0 for i in range(latents)]
        whole[0] = whole[min(1, latents - 1)]
        assert (windows == expected)[~np.array(whole)].all(), (frames, tokens)
        exact += (windows == expected).all()
    assert exact >= 0.9 * len(RECORDED["fantasytalking cases"])


@pytest.fixture(scope="module")
def wav2vec() -> tuple:
    encoder = Wav2Vec2Model.from_pretrained(DATA / "wav2vec").eval()
    return Wav2Vec2FeatureExtractor.from_pretrained(DATA / "wav2vec"), encoder


@pytest.mark.parametrize("model", ["multitalk", "fantasytalking"])
def test_wav2vec_features_are_the_authors(wav2vec, model):
    recorded = np.load(DATA / "wav2vec.npz")[model]
    expected = torch.from_numpy(recorded).flatten(1) if model == "multitalk" else torch.from_numpy(recorded)[0]
    features, positions = encode_audio_features(voice(), *wav2vec, frame_window=model, fps=25)
    assert features.shape == expected.shape and len(positions) == len(features)
    assert (features - expected).abs().max() / expected.abs().max() <= 1e-5
    again, _ = encode_audio_features(voice(), *wav2vec, frame_window=model, fps=25)
    assert (again == features).all()  # the resampling leaves no trace in the encoder


def test_a_partial_last_frame_has_features_if_the_authors_give_it_some(wav2vec):
    """MultiTalk and InfiniteTalk take int(25 s), SkyReels-V3 ceil(25 s)."""
    expected: dict[FeatureRounding, list[int]] = {"floor": [82, 50, 1], "ceil": [83, 50, 1]}
    for rounding, counts in expected.items():
        for seconds, count in zip((3.3, 2.0, 0.01), counts, strict=True):
            samples = np.resize(voice(), round(seconds * 16000))
            features, positions = encode_audio_features(
                samples, *wav2vec, frame_window="multitalk", fps=25, rounding=rounding
            )
            assert len(features) == count and positions.tolist() == [2 * i for i in range(count)]


def test_positions_cover_the_sound(wav2vec):
    for fps in (23.0, 25.0):
        for model in ("multitalk", "fantasytalking"):
            _, positions = encode_audio_features(voice(), *wav2vec, frame_window=model, fps=fps)
            step = float(positions[1])
            assert positions[0] == 0 and abs(float(positions[-1]) + step - 1.337 * 50) <= step
    assert len(encode_audio_features(voice()[:50], *wav2vec, frame_window="multitalk", fps=25)[0]) == 1


def test_loudness_is_that_of_pyloudnorm():
    assert loudness_gain(torch.from_numpy(voice())) == pytest.approx(
        float(np.load(DATA / "wav2vec.npz")["gain"]), rel=1e-6
    )
    assert loudness_gain(torch.zeros(16000)) == loudness_gain(torch.ones(100)) == 1.0


def test_text_and_image_encoder_of_the_original_layout(tmp_path):
    torch.save(checkpoint("umt5"), tmp_path / "t5.pth")
    convert_text_encoder(tmp_path / "t5.pth", tmp_path / "t5")
    text_encoder = UMT5EncoderModel.from_pretrained(tmp_path / "t5").eval()
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 7:] = 0
    with torch.no_grad():
        states = text_encoder(torch.arange(24).reshape(2, 12) * 5 % 64, attention_mask=mask).last_hidden_state
    for row, length in enumerate((12, 7)):
        assert (states[row, :length] - torch.from_numpy(RECORDED["umt5"][row, :length])).abs().max() <= 1e-5

    torch.save(checkpoint("clip") | {"textual.weight": torch.zeros(3)}, tmp_path / "clip.pth")
    convert_image_encoder(tmp_path / "clip.pth", tmp_path / "clip")
    image_encoder = CLIPVisionModel.from_pretrained(tmp_path / "clip").eval()
    with torch.no_grad():
        tokens = image_encoder(given("pixels", 1, 3, 224, 224), output_hidden_states=True).hidden_states[-2]
    assert error(tokens, "clip") <= 1e-5
