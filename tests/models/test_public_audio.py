"""Converted public models equal their authors' code, recorded side by side (tests/data/README.md)."""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from tiny_checkpoints import save_diffusers
from transformers import CLIPVisionModel, UMT5EncoderModel, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Guidance, Scale
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.generation.sampling import set_timesteps
from skyreels_audio.generation.step import Batched, plan_step
from skyreels_audio.generation.windows import Windows
from skyreels_audio.media import InputError
from skyreels_audio.models.audio_features import FeatureRounding, encode_audio_features, loudness_gain
from skyreels_audio.models.convert import convert_audio_model
from skyreels_audio.models.convert.audio_models import (
    FANTASYTALKING_DEFAULTS,
    MULTITALK_DEFAULTS,
    SKYREELS_V3_DEFAULTS,
    audio_config,
    read_audio_weights,
)
from skyreels_audio.models.convert.encoders import convert_image_encoder, convert_text_encoder
from skyreels_audio.models.convert.tensors import write_shards
from skyreels_audio.models.convert.transformer import read_backbone, with_audio
from skyreels_audio.models.rope import latent_positions
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel
from skyreels_audio.models.windowed_audio_attention import fantasytalking_windows

DATA = Path(__file__).parents[1] / "data"
RECORDED = np.load(DATA / "public_models.npz")
SHAPES = json.loads((DATA / "public_models.json").read_text())


def weight(name: str, shape: list[int]) -> torch.Tensor:
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    if len(shape) > 1:
        values = values / math.sqrt(np.prod(shape[1:]))
    else:
        values = 1 + 0.1 * values if "norm" in name and name.endswith("weight") else 0.1 * values
    return torch.from_numpy(values.astype(np.float32))


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


def voice() -> np.ndarray:
    samples = int(1.337 * 16000)
    time = np.arange(samples) / 16000
    tone = 0.2 * np.sin(2 * np.pi * (120 + 30 * time) * time) * (1 + np.sin(2 * np.pi * 3 * time))
    wave = (tone + 0.01 * np.random.default_rng(5).normal(size=samples)).astype(np.float32)
    wave[9000:12000] *= 0.01
    return wave


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


@pytest.mark.parametrize("model", ["multitalk", "fantasytalking"])
def test_guidance_order_of_a_converted_model_is_the_one_it_was_trained_for(model, tmp_path):
    """v from named branches by our guidance equals the authors' formula (order A or B)."""
    defaults = FANTASYTALKING_DEFAULTS if model == "fantasytalking" else MULTITALK_DEFAULTS
    text, audio = Scale.parse(defaults["text_guidance_scale"]), Scale.parse(defaults["audio_guidance_scale"])
    values = {frozenset(): 1.0, frozenset({"text"}): 2.0, frozenset({"audio"}): 5.0, frozenset({"text", "audio"}): 11.0}

    def branch(latents_BCTHW, t, conditions):
        (part,) = conditions.parts
        assert "reference" not in part.drops
        return torch.full_like(latents_BCTHW, values[frozenset({"text", "audio"}) - part.drops])

    one = torch.ones(1, 1, 1)
    conditions = Conditions(one, one, one, one[0, 0], one[None, None], one[None, None], one[0, 0])
    guidance = Guidance(audio, text, ("text", "audio"), defaults["guidance_order"])
    plan = plan_step(Windows(), guidance.branches(0.0, conditions))
    v = Batched(branch)(plan, torch.zeros(1, 1, 1, 1, 1), torch.tensor(1.0), conditions).item()
    s_t, s_a = text(0.0), audio(0.0)
    expected = 1 + s_t * (2 - 1) + s_a * (11 - 2) if model == "fantasytalking" else 1 + s_t * (11 - 5) + s_a * (5 - 1)
    assert v == pytest.approx(expected)


@pytest.mark.parametrize(
    ("defaults", "steps", "expected"),
    [
        (SKYREELS_V3_DEFAULTS, 4, [1000, 956.6, 846.5, 10.9]),
        (MULTITALK_DEFAULTS, 3, [1000, 875.2, 7.0]),
        (FANTASYTALKING_DEFAULTS, 4, [1000, 937.5, 833.3, 625.0]),
    ],
    ids=["SkyReels-V3", "MultiTalk", "FantasyTalking"],
)
def test_timesteps_of_a_converted_model_are_the_authors(defaults, steps, expected):
    """Their sigma' = shift sigma / (1 + (shift - 1) sigma) of evenly spaced sigma, from 1 to 0.001 or to 1 / steps."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=defaults["shift"])
    timesteps = set_timesteps(scheduler, steps, "cpu", defaults["timestep_spacing"])
    assert timesteps.tolist() == pytest.approx(expected, abs=0.06)
    sigmas = torch.as_tensor(scheduler.sigmas)
    assert (1000 * sigmas).tolist() == pytest.approx([*timesteps.tolist(), 0], abs=1e-3)


def fantasytalking_weights(width: int) -> dict[str, torch.Tensor]:
    shapes = {"proj_model.proj.weight": (10, 16), "proj_model.norm.weight": (10,), "proj_model.norm.bias": (10,)}
    for block, part in ((block, part) for block in range(2) for part in "kv"):
        shapes[f"audio_processor.blocks.{block}.cross_attn.processor.{part}_proj.weight"] = (width, 10)
    return {name: weight(name, shape) for name, shape in shapes.items()}


def test_an_interrupted_conversion_is_not_gone_on_with_for_another_audio_model(tmp_path, monkeypatch):
    source = tmp_path / "Wan2.1-I2V-14B-720P"
    save_diffusers(source.name, source)
    weights, key = fantasytalking_weights(48), "audio_processor.blocks.1.cross_attn.processor.k_proj.weight"
    save_file(weights, tmp_path / "one.safetensors")
    save_file(weights | {key: weights[key] + 1}, tmp_path / "two.safetensors")

    def convert(name: str) -> Path:
        return convert_audio_model(tmp_path / f"{name}.safetensors", source, DATA / "wav2vec", tmp_path / "out")

    def fail(*_: Any) -> None:
        raise OSError("no space")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(Path, "rename", fail)
        with pytest.raises(InputError, match="no space.*run the same command again"):
            convert("one")
    assert list((tmp_path / "out.partial" / "transformer").glob("*.safetensors"))
    converted = SkyReelsAudioTransformer3DModel.from_pretrained(convert("two") / "transformer")
    assert torch.equal(converted.state_dict()["blocks.1.audio_attn.to_k.weight"], weights[key] + 1)


def test_missing_and_unexpected_weights_are_named(tmp_path):
    backbone = (
        save_diffusers("Wan2.1-I2V-14B-720P", tmp_path / "Wan2.1-I2V-14B-720P") and tmp_path / "Wan2.1-I2V-14B-720P"
    )
    weights = fantasytalking_weights(48)

    def convert(**changed) -> Path:
        save_file({**weights, **changed}, tmp_path / "audio.safetensors")
        return convert_audio_model(tmp_path / "audio.safetensors", backbone, DATA / "wav2vec", tmp_path / "out")

    with pytest.raises(InputError, match="unexpected tensors: audio_processor.blocks.0.surprise"):
        convert(**{"audio_processor.blocks.0.surprise": torch.zeros(1)})
    with pytest.raises(InputError, match=r"wrong size: blocks.1.audio_attn.to_k.weight is \(3, 10\), not \(48, 10\)"):
        convert(**{"audio_processor.blocks.1.cross_attn.processor.k_proj.weight": torch.zeros(3, 10)})
    with pytest.raises(InputError, match=r"no audio branch .*expected 2, got 1"):
        convert(**{"proj_model.proj.weight": torch.zeros(3)})
    with pytest.raises(InputError, match="lacks audio_projector.norm.bias"):
        weights.pop("proj_model.norm.bias")
        convert()
    with pytest.raises(InputError, match="absent.ckpt does not exist"):
        convert_audio_model(tmp_path / "absent.ckpt", backbone, DATA / "wav2vec", tmp_path / "out")
    save_diffusers("Wan2.1-T2V-14B", tmp_path / "Wan2.1-T2V-14B")
    with pytest.raises(InputError, match="was trained on an image-to-video backbone"):
        convert_audio_model(
            tmp_path / "audio.safetensors", tmp_path / "Wan2.1-T2V-14B", DATA / "wav2vec", tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["multitalk", "fantasytalking"])
def test_a_converted_audio_model_speaks(model, tmp_path):
    """From public weights to a video of several windows, which the voice changes."""
    name = "Wan2.1-I2V-14B-720P"
    width = save_diffusers(name, tmp_path / name).patch_embedding.weight.shape[0]
    weights = {}
    if model == "multitalk":
        linear = {"proj1": (512, 160), "proj1_vf": (512, 256), "proj2": (512, 512), "proj3": (32 * 6, 512)}
        linear = {f"audio_proj.{layer}": shape for layer, shape in linear.items()} | {"audio_proj.norm": (6,)}
        for block in (f"blocks.{i}." for i in range(2)):
            linear |= {block + "norm_x": (width,), block + "audio_cross_attn.kv_linear": (2 * width, 6)}
            linear |= {block + f"audio_cross_attn.{layer}": (width, width) for layer in ("q_linear", "proj")}
        for layer, shape in linear.items():
            weights |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    named = {name: weight(name, shape) for name, shape in weights.items()} or fantasytalking_weights(width)
    save_file(named, tmp_path / "audio.safetensors")
    out = convert_audio_model(tmp_path / "audio.safetensors", tmp_path / name, DATA / "wav2vec", tmp_path / "out")
    pipeline = SkyReelsAudioPipeline.from_pretrained(out)
    settings = pipeline.settings()
    assert (settings.height, settings.width) == (720, 1280)
    assert settings.guidance_order == ("text_last" if model == "multitalk" else "audio_last")
    assert settings.timestep_spacing == ("linspace" if model == "multitalk" else "trailing")
    assert not settings.silence_guidance_fade
    # The backbone's folder has UniPC; the audio model has the schedule it was made for.
    assert isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler)
    assert pipeline.scheduler.config["shift"] == (7 if model == "multitalk" else 5)
    portrait = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    options: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 2, "window": 5, "overlap": 2}
    videos = []
    for sound in (voice(), voice()[::-1].copy()):
        generator = torch.Generator().manual_seed(0)
        videos.append(np.stack(list(pipeline(portrait, sound, "a man", generator=generator, **options).frames)))
    assert videos[0].shape == (math.ceil(1.337 * settings.fps), 32, 32, 3)
    assert (videos[0] != videos[1]).any()
