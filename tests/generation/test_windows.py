from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Guidance
from skyreels_audio.generation.step import Batched, plan_step
from skyreels_audio.generation.windows import Windows, fusion_weights, plan_windows
from skyreels_audio.models.rope import latent_positions, token_positions

MODES = ("bidirectional", "unidirectional", "none")


@st.composite
def plans(draw):
    window = draw(st.integers(3, 24))
    return draw(st.integers(1, 150)), window, draw(st.integers(2, window - 1))


def timeline(length: int) -> Conditions:
    return Conditions(
        text_BSD=torch.zeros(1, 1, 1),
        null_text_BSD=torch.zeros(1, 1, 1),
        audio_BAD=torch.arange(8.0 * length).view(1, -1, 1),
        audio_positions_A=token_positions(8 * length),
        reference_BCTHW=torch.zeros(1, 2, length, 1, 1),
        known_B4THW=torch.zeros(1, 4, length, 1, 1),
        video_positions_T=latent_positions(length),
    )


def model(latents_BCTHW, t, conditions):
    """Depends on the latents, on their neighbours and on where the window begins, as a real model does."""
    mixed = latents_BCTHW + 0.5 * latents_BCTHW.roll(1, dims=2) + 0.1 * latents_BCTHW.mean()
    return torch.tanh(mixed) + conditions.audio_BAD.mean() / 100 + t / 1000


def fused(windows: Windows, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The velocity of a timeline without guidance."""
    conditions = timeline(latents.shape[2])
    return Batched(model)(plan_step(windows, Guidance().branches(0.0, conditions)), latents, t, conditions)


@given(plans())
def test_windows_are_equal_and_cover_the_timeline(plan):
    length, window, overlap = plan
    spans = plan_windows(length, window, overlap)
    assert {stop - start for start, stop in spans} == {min(window, length)}
    assert spans[0][0] == 0 and spans[-1][1] == length
    for (start, stop), (next_start, next_stop) in zip(spans, spans[1:], strict=False):
        assert start < next_start <= stop - overlap and stop < next_stop


@given(plans(), st.sampled_from(MODES))
def test_weights_sum_to_one_everywhere(plan, mode):
    length, window, overlap = plan
    spans = plan_windows(length, window, 0 if mode == "none" else overlap)
    total = torch.zeros(length)
    for (start, stop), weight in zip(spans, fusion_weights(spans, mode), strict=True):
        assert (weight >= 0).all()
        total[start:stop] += weight
    torch.testing.assert_close(total, torch.ones(length))


@given(plans())
def test_the_pinned_first_latent_of_later_windows_has_no_weight(plan):
    spans = plan_windows(*plan)
    assert all(weight[0] == 0 for weight in fusion_weights(spans, "bidirectional")[1:])


def test_weights_are_the_papers():
    first, second = fusion_weights([(0, 10), (6, 16)], "bidirectional")
    assert second.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1])
    assert first.tolist() == pytest.approx([1, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3, 0])


@given(st.integers(1, 12), st.sampled_from(MODES))
def test_a_single_window_changes_no_bit(length, mode):
    latents, t = torch.randn(1, 2, length, 1, 1), torch.tensor(500.0)
    assert torch.equal(fused(Windows(12, 4, mode), latents, t), model(latents, t, timeline(length)))


def corrected_algorithm_1(latents, conditions, window, overlap, sigmas):
    """Algorithm 1 as printed, with (1 - w) for (w - 1), every window of the same length, and blending at every step."""
    length = latents.shape[2]
    for sigma, next_sigma in zip(sigmas, sigmas[1:], strict=False):
        new, start, previous_stop = latents.clone(), 0, None
        while True:
            stop = start + window
            part = latents[:, :, start:stop]
            velocity = model(part, 1000 * sigma, conditions.window(start, stop))
            part = part + (next_sigma - sigma) * velocity
            if previous_stop is not None:
                o = previous_stop - start
                w = ((torch.arange(1, o + 1) - 1) / (o - 1)).view(-1, 1, 1)
                part[:, :, :o] = w * part[:, :, :o] + (1 - w) * new[:, :, start:previous_stop]
            new[:, :, start:stop] = part
            if stop == length:
                break
            previous_stop, start = stop, min(start + window - overlap, length - window)
        latents = new
    return latents


@settings(max_examples=30, deadline=None)
@given(plans(), st.integers(0, 2**31))
def test_blending_velocities_is_algorithm_1_with_euler_steps(plan, seed):
    length, window, overlap = plan
    length = max(length, window + 1)
    latents = torch.randn(1, 2, length, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    sigmas = torch.linspace(1, 0, 6, dtype=torch.float64)
    expected = corrected_algorithm_1(latents, timeline(length), window, overlap, sigmas)
    for sigma, next_sigma in zip(sigmas, sigmas[1:], strict=False):
        latents = latents + (next_sigma - sigma) * fused(Windows(window, overlap), latents, 1000 * sigma)
    torch.testing.assert_close(latents, expected, rtol=1e-6, atol=1e-6)


def test_information_flows_as_figure_7_says():
    """Bidirectional: both windows learn of each other. Unidirectional: the later of the earlier. None: neither."""
    t = torch.tensor(500.0)

    def influence(mode: Any, changed: int, watched: int) -> bool:
        latents = torch.randn(1, 2, 16, 1, 1, generator=torch.Generator().manual_seed(0))
        other = latents.clone()
        other[:, :, changed] += 1
        outputs = []
        for z in (latents, other):
            outputs.append(fused(Windows(10, 4, mode), z, t))  # 0…9 and 6…15; without overlap 0…9 and 6…15 cut at 10
        return not torch.equal(outputs[0][:, :, watched], outputs[1][:, :, watched])

    assert influence("bidirectional", 12, 8) and influence("bidirectional", 8, 12)
    assert not influence("unidirectional", 12, 8) and influence("unidirectional", 8, 12)


def test_without_overlap_windows_are_independent():
    latents, t = torch.randn(1, 2, 20, 1, 1), torch.tensor(500.0)
    velocity = fused(Windows(10, 4, "none"), latents, t)
    halves = [model(latents[:, :, i : i + 10], t, timeline(20).window(i, i + 10)) for i in (0, 10)]
    torch.testing.assert_close(velocity, torch.cat(halves, dim=2))
