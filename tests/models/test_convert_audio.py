"""Converted public models are run as their authors run them, and what cannot be converted is named."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from public_audio import DATA, voice, weight
from safetensors.torch import save_file
from tiny_checkpoints import save_diffusers

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Guidance, Scale
from skyreels_audio.generation.pipeline import SkyReelsAudioPipeline
from skyreels_audio.generation.sampling import set_timesteps
from skyreels_audio.generation.step import Batched, plan_step
from skyreels_audio.generation.windows import Windows
from skyreels_audio.media import InputError
from skyreels_audio.models.convert import convert_audio_model
from skyreels_audio.models.convert.audio_models import (
    FANTASYTALKING_DEFAULTS,
    MULTITALK_DEFAULTS,
    SKYREELS_V3_DEFAULTS,
)
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel


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
