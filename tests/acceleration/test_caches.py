"""Step caches on real transformers at tiny size: what they decide, what they reuse, and that they never mix windows."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.hooks.mag_cache import MagCacheConfig
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skyreels_audio.acceleration.cache_fit import ResidualChanges, fit_coefficients, magnitude_ratios
from skyreels_audio.acceleration.kv_cache import CrossAttentionKVCache
from skyreels_audio.acceleration.teacache import (
    COEFFICIENTS,
    SkipPlan,
    TeaCacheVelocity,
    diffusers_cache,
    modulations,
    published_coefficients,
    skip_plan,
)
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Guidance, Scale
from skyreels_audio.generation.sampling import sample
from skyreels_audio.generation.step import Batched, Executor, TransformerVelocity, Velocity
from skyreels_audio.generation.windows import Windows
from skyreels_audio.models.rope import latent_positions, token_positions
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

CHANNELS, LATENTS, WINDOW = 4, 8, 5


def make_transformer(seed: int = 0, **config) -> SkyReelsAudioTransformer3DModel:
    torch.manual_seed(seed)
    size = dict(num_attention_heads=2, attention_head_dim=12, in_channels=2 * CHANNELS + 4, out_channels=CHANNELS)
    size |= dict(text_dim=16, freq_dim=64, ffn_dim=32, num_layers=2, audio_dim=16, audio_window=16.0)
    model = SkyReelsAudioTransformer3DModel(**{**size, **config}).eval()
    for name, weight in model.named_parameters():
        if "audio_attn.to_out" in name:  # zero in a fresh model, which so would hear nothing
            torch.nn.init.normal_(weight, std=0.3)
    return model


def make_conditions(latents: int = LATENTS, text: int = 6, image: int | None = None) -> Conditions:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Conditions(
        text_BSD=normal(1, text, 16),
        null_text_BSD=normal(1, text, 16),
        audio_BAD=normal(1, 8 * latents, 16),
        audio_positions_A=token_positions(8 * latents),
        reference_BCTHW=normal(1, CHANNELS, WINDOW, 4, 6),
        known_B4THW=(torch.arange(WINDOW) == 0).float().view(1, 1, -1, 1, 1).expand(1, 4, WINDOW, 4, 6),
        video_positions_T=latent_positions(latents),
        image_BND=None if image is None else normal(1, 3, image),
        audio_reach=16.0,
    )


def make_scheduler(steps: int) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    return scheduler


def execute(execute: Executor, steps: int, audio: str = "4.5", conditions: Conditions | None = None) -> Tensor:
    """Two windows, three branches."""
    noise = torch.randn(1, CHANNELS, LATENTS, 4, 6, generator=torch.Generator().manual_seed(4))
    guidance = Guidance(Scale.parse(audio), Scale.parse(2.0))
    given = conditions or make_conditions()
    return sample(execute, make_scheduler(steps), noise, given, guidance, Windows(WINDOW, 2))


def run(velocity: Velocity, steps: int, audio: str = "4.5", conditions: Conditions | None = None) -> Tensor:
    return execute(Batched(velocity), steps, audio, conditions)


def published_rule(signals: list[np.ndarray], coefficients, threshold: float, retain: bool) -> list[bool]:
    """TeaCache4Wan2.1's decision, step by step as its forward makes it, for one branch."""
    polynomial = np.poly1d(coefficients)
    first, last = (5, len(signals)) if retain else (1, len(signals) - 1)
    accumulated, previous, decisions = 0.0, signals[0], []
    for count, signal in enumerate(signals):
        if count < first or count >= last:
            should_calculate, accumulated = True, 0.0
        else:
            accumulated += polynomial(np.abs(signal - previous).mean() / np.abs(previous).mean())
            should_calculate = not accumulated < threshold
            if should_calculate:
                accumulated = 0.0
        previous = signal
        decisions.append(should_calculate)
    return decisions


@pytest.mark.parametrize(("model", "retain"), COEFFICIENTS)
@settings(max_examples=15, deadline=None)
@given(steps=st.integers(1, 60), threshold=st.floats(0.01, 1.0), seed=st.integers(0, 3))
def test_the_plan_is_the_published_rule(model, retain, steps, threshold, seed):
    transformer, timesteps = make_transformer(seed), make_scheduler(steps).timesteps
    coefficients = COEFFICIENTS[model, retain]
    plan = skip_plan(transformer, timesteps, coefficients, threshold, retain)

    embedder = transformer.condition_embedder
    signals = []
    for t in timesteps:  # one at a time, by the model's own forward
        temb, projected, *_ = embedder(t.view(1), torch.zeros(1, 1, 16))
        signals.append((projected if retain else temb).detach().double().numpy())
    assert list(plan.computes) == published_rule(signals, coefficients, threshold, retain)


def test_signal_is_what_the_blocks_read():
    transformer, timesteps = make_transformer(), make_scheduler(4).timesteps
    temb, projected, *_ = transformer.condition_embedder(timesteps, torch.zeros(1, 1, 16))
    torch.testing.assert_close(modulations(transformer, timesteps, retain=False), temb)
    torch.testing.assert_close(modulations(transformer, timesteps, retain=True), projected)


def test_rows_are_chosen_by_the_shape_of_the_model():
    def row(**config):
        return published_coefficients(make_transformer(num_layers=0, audio_dim=None, **config).config, 544 * 960, True)

    small, image = dict(num_attention_heads=12, attention_head_dim=128), dict(in_channels=36, out_channels=16)
    assert row(**small, **image) == COEFFICIENTS["i2v-480p", True]
    assert row(**small, in_channels=16, out_channels=16) == COEFFICIENTS["t2v-1.3b", True]
    with pytest.raises(ValueError, match="fit"):
        row()


def count_blocks(transformer: SkyReelsAudioTransformer3DModel) -> list[int]:
    counted = [0]
    transformer.blocks[0].register_forward_hook(lambda *_: counted.__setitem__(0, counted[0] + 1))
    return counted


def test_threshold_zero_is_bit_identical():
    transformer = make_transformer()
    plan = skip_plan(transformer, make_scheduler(6).timesteps, COEFFICIENTS["i2v-480p", False], 0.0, False)
    assert torch.equal(run(TeaCacheVelocity(transformer, plan), 6), run(TransformerVelocity(transformer), 6))


def half(steps: int) -> SkipPlan:
    """Every other step computes."""
    return SkipPlan(tuple(make_scheduler(steps).timesteps.tolist()), tuple(i % 2 == 0 for i in range(steps)))


def test_skipped_steps_do_not_run_the_blocks():
    transformer = make_transformer()
    counted = count_blocks(transformer)
    result = run(TeaCacheVelocity(transformer, half(6), offload=True), 6)
    assert counted == [2 * 3 * 3]  # windows, branches, half of the steps
    assert not torch.equal(result, run(TransformerVelocity(transformer), 6))
    assert "run_blocks" not in vars(transformer)


def test_a_skipped_step_adds_the_last_residual_of_its_own_window_and_branch():
    transformer, timesteps = make_transformer(), make_scheduler(2).timesteps
    velocity = TeaCacheVelocity(transformer, half(2))
    whole = make_conditions()
    views = [whole.window(0, 5), whole.window(3, 8), whole.window(0, 5).drop("audio")]
    latents = [torch.randn(1, CHANNELS, 5, 4, 6) for _ in views]
    for latents_BCTHW, view in zip(latents, views, strict=True):
        velocity(latents_BCTHW, timesteps[0], view)
    for latents_BCTHW, view in zip(reversed(latents), reversed(views), strict=True):
        alone = TeaCacheVelocity(transformer, half(2))
        alone(latents_BCTHW, timesteps[0], view)
        assert torch.equal(
            velocity(latents_BCTHW, timesteps[1], view),
            alone(latents_BCTHW, timesteps[1], replace(view.drop("audio"), parts=view.parts)),
        )


def test_a_branch_that_was_away_is_not_served_what_is_outdated():
    transformer, timesteps = make_transformer(), make_scheduler(6).timesteps
    view, latents = make_conditions().window(0, 5), torch.randn(1, CHANNELS, 5, 4, 6)
    velocity, exact = TeaCacheVelocity(transformer, half(6)), TransformerVelocity(transformer)
    velocity(latents, timesteps[0], view)
    assert not torch.equal(velocity(latents, timesteps[1], view), exact(latents, timesteps[1], view))
    assert torch.equal(velocity(latents, timesteps[3], view), exact(latents, timesteps[3], view))  # missed step 2


def test_coefficients_fitted_to_a_model_predict_its_changes():
    transformer = make_transformer(freq_dim=128)
    recorder = ResidualChanges(transformer)
    plain = [run(TransformerVelocity(transformer), steps) for steps in (8, 12)]
    assert all(torch.equal(run(recorder, n), expected) for n, expected in zip((8, 12), plain, strict=True))
    assert len(recorder.changes) == (7 + 11) * 2 * 3
    coefficients = fit_coefficients(transformer, recorder.changes, retain=False)
    timesteps = make_scheduler(12).timesteps
    threshold = 0.3

    # Least squares with a constant term: predictions and observations have the same mean.
    signal = modulations(transformer, timesteps, retain=False).double()
    inputs = ((signal[1:] - signal[:-1]).abs().mean(1) / signal[:-1].abs().mean(1)).numpy()
    times = timesteps.tolist()
    observed = [
        np.mean([c.relative for c in recorder.changes if (c.before, c.after) == pair])
        for pair in zip(times, times[1:], strict=False)
    ]
    errors = np.polyval(coefficients, inputs) - observed
    assert np.abs(errors).mean() < np.std(observed)
    assert not all(skip_plan(transformer, timesteps, coefficients, threshold, False).computes)

    ratios = magnitude_ratios(timesteps, recorder.changes)
    assert len(ratios) == 12 and ratios[0] == 1 and all(math.isfinite(ratio) for ratio in ratios)
    with pytest.raises(ValueError, match="steps"):
        fit_coefficients(transformer, recorder.changes[:2], retain=False)


@pytest.mark.parametrize(
    "config",
    [
        MagCacheConfig(mag_ratios=[1.0] * 6, num_inference_steps=6, threshold=1.0, max_skip_steps=1),
        TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=2),
    ],
    ids=["magcache", "taylorseer"],
)
def test_caches_of_diffusers_run_and_leave_no_trace(config):
    transformer = make_transformer()
    plain = run(TransformerVelocity(transformer), 6)
    with diffusers_cache(transformer, config) as velocity:
        first = run(velocity, 6)
    assert not torch.equal(first, plain) and torch.isfinite(first).all()
    with diffusers_cache(transformer, config) as velocity:
        assert torch.equal(run(velocity, 6), first)
    assert torch.equal(run(TransformerVelocity(transformer), 6), plain)


@pytest.mark.parametrize("image", [False, True], ids=["text", "with CLIP tokens"])
def test_keys_and_values_are_computed_once_and_change_nothing(image):
    transformer = make_transformer(**(dict(image_dim=12, added_kv_proj_dim=24) if image else {}))
    conditions = make_conditions(text=512 if image else 6, image=12 if image else None)
    plain = run(TransformerVelocity(transformer), 4, conditions=conditions)
    counted = {"text": 0, "audio": 0}

    def count(module, name):
        original = module.forward

        def forward(*args):
            counted[name] += 1
            return original(*args)

        module.forward = forward

    count(transformer.blocks[1].get_submodule("attn2.to_k"), "text")
    count(transformer.audio_projector, "audio")
    velocity = CrossAttentionKVCache(TransformerVelocity(transformer), transformer)
    assert torch.equal(run(velocity, 4, conditions=conditions), plain)
    assert counted["audio"] == 2 * 3  # windows, branches
    # The null text is one, whatever else is dropped; with CLIP tokens so are the two prompts' contexts.
    assert counted["text"] == 2
    velocity.close()
    assert torch.equal(run(TransformerVelocity(transformer), 4, conditions=conditions), plain)


def test_what_is_kept_is_not_served_to_another_velocity():
    """The pipeline makes a portrait from words with the same transformer, in the midst of it."""
    transformer, other = make_transformer(), replace(make_conditions(), text_BSD=torch.ones(1, 6, 16))
    plain = run(TransformerVelocity(transformer), 2, conditions=other)
    velocity = CrossAttentionKVCache(TransformerVelocity(transformer), transformer)
    kept = run(velocity, 2)
    assert torch.equal(run(TransformerVelocity(transformer), 2, conditions=other), plain)
    assert torch.equal(run(velocity, 2), kept)
    velocity.close()


def test_keys_and_values_stay_within_their_budget():
    transformer = make_transformer()
    plain = run(TransformerVelocity(transformer), 3)
    velocity = CrossAttentionKVCache(TransformerVelocity(transformer), transformer, max_bytes=5000)
    assert torch.equal(run(velocity, 3), plain)
    assert 0 <= velocity.free_bytes < 5000
    velocity.close()


@pytest.mark.parametrize("evaluations", [1, 2, 8])
@pytest.mark.parametrize("audio", ["4.5", "interval:4.5@0.2-0.7"])
def test_batches_change_nothing(evaluations, audio):
    velocity = TransformerVelocity(make_transformer())
    batched = Batched(velocity, evaluations * WINDOW * 4 * 6)
    torch.testing.assert_close(execute(batched, 4, audio), run(velocity, 4, audio), atol=1e-5, rtol=0)


def test_batches_keep_their_caches_apart():
    transformer = make_transformer()
    expected = run(TeaCacheVelocity(transformer, half(4)), 4)
    kept = CrossAttentionKVCache(TeaCacheVelocity(transformer, half(4)), transformer)
    torch.testing.assert_close(execute(Batched(kept, 4 * WINDOW * 4 * 6), 4), expected, atol=1e-5, rtol=0)
    kept.close()
