from dataclasses import replace

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from skyreels_audio.generation import sampling
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Guidance, Scale
from skyreels_audio.generation.step import Batched, TransformerVelocity, plan_step
from skyreels_audio.generation.windows import Windows
from skyreels_audio.models.rope import latent_positions, token_positions
from skyreels_audio.models.transformer import SkyReelsAudioTransformer3DModel

SCHEDULERS = {
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": lambda: UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
}
CLEAN = torch.linspace(-1, 1, 12).view(1, 2, 3, 1, 2)


def conditions(text: float = 0.0) -> Conditions:
    return Conditions(
        text_BSD=torch.full((1, 4, 8), text),
        null_text_BSD=torch.zeros(1, 4, 8),
        audio_BAD=None,
        audio_positions_A=None,
        reference_BCTHW=torch.zeros(1, 2, 3, 1, 2),
        known_B4THW=torch.zeros(1, 4, 3, 1, 2),
        video_positions_T=latent_positions(3),
    )


def sample(velocity, scheduler, latents, conditions, **options):
    """Without guidance, in one window."""
    return sampling.sample(Batched(velocity), scheduler, latents, conditions, Guidance(), Windows(), **options)


def straight(latents, t, conditions):
    """The velocity of straight paths to CLEAN: z = (1 - sigma) CLEAN + sigma noise."""
    return (latents - CLEAN) / (t / 1000)


def curved(latents, t, conditions):
    return straight(latents, t, conditions) + 0.3 * torch.sin(3 * latents + t / 200)


def scheduler(name: str, steps: int = 6):
    made = SCHEDULERS[name]()
    made.set_timesteps(steps)
    return made


@pytest.mark.parametrize("name", SCHEDULERS)
def test_straight_paths_end_at_the_clean_latents(name):
    result = sample(straight, scheduler(name), torch.randn(CLEAN.shape), conditions())
    torch.testing.assert_close(result, CLEAN, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_stepping_in_slices_changes_no_bit(name, monkeypatch):
    noise = torch.randn(CLEAN.shape)
    whole = sample(curved, scheduler(name), noise.clone(), conditions())
    monkeypatch.setattr(sampling, "SLICE", 2)
    assert torch.equal(sample(curved, scheduler(name), noise.clone(), conditions()), whole)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_loop_is_the_schedulers_own(name):
    latents, solver = torch.randn(CLEAN.shape), scheduler(name)
    expected = latents
    for t in solver.timesteps:
        expected = solver.step(curved(expected, t, conditions()), t, expected).prev_sample
    assert torch.equal(sample(curved, scheduler(name), latents.clone(), conditions()), expected)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resumed_equals_uninterrupted(name, stop, tmp_path):
    noise, calls = torch.randn(CLEAN.shape), []

    def interrupted(latents, t, conditions):
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(t)
        return curved(latents, t, conditions)

    with pytest.raises(KeyboardInterrupt):
        sample(interrupted, scheduler(name), noise.clone(), conditions(), resume=tmp_path / "state")
    calls.append(None)  # never interrupt again
    resumed = sample(interrupted, scheduler(name), noise.clone(), conditions(), resume=tmp_path / "state")
    assert torch.equal(resumed, sample(curved, scheduler(name), noise.clone(), conditions()))
    assert len(calls) == 6 + 1


def test_a_finished_state_is_not_run_again(tmp_path):
    noise, state = torch.randn(CLEAN.shape), tmp_path / "state"
    done = sample(curved, scheduler("euler"), noise.clone(), conditions(), resume=state)
    never = None
    assert torch.equal(sample(never, scheduler("euler"), noise.clone(), conditions(), resume=state), done)  # pyright: ignore
    assert list(tmp_path.iterdir()) == [state]


@pytest.mark.parametrize("change", ["noise", "text", "steps", "options"])
def test_a_state_of_other_inputs_is_refused(change, tmp_path):
    noise, state = torch.zeros(CLEAN.shape), tmp_path / "state"
    sample(curved, scheduler("euler"), noise.clone(), conditions(), resume=state, options="a")
    steps = 7 if change == "steps" else 6
    with pytest.raises(ValueError, match="other inputs"):
        sample(
            curved,
            scheduler("euler", steps),
            noise + (change == "noise"),
            conditions(text=float(change == "text")),
            resume=state,
            options="b" if change == "options" else "a",
        )


def test_a_broken_state_is_refused(tmp_path):
    (tmp_path / "state").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="delete it"):
        sample(curved, scheduler("euler"), CLEAN.clone(), conditions(), resume=tmp_path / "state")


@pytest.mark.parametrize("steps", [0, 2, 6, None])
def test_hybrid_shows_the_video_to_the_first_steps_only(steps):
    seen = []

    def record(latents, t, conditions):
        seen.append("video" in conditions.parts[0].drops)
        return latents

    sample(record, scheduler("euler"), CLEAN.clone(), conditions(), hybrid_steps=steps)
    shown = 6 if steps is None else steps
    assert seen == [False] * shown + [True] * (6 - shown)


def test_what_a_callback_returns_is_gone_on_with():
    calls = []

    def on_step_end(step, t, latents):
        calls.append((step, float(t)))
        return CLEAN if step == 2 else latents

    never = [torch.full_like(CLEAN, float("nan"))] * 3 + [torch.zeros_like(CLEAN)] * 3
    result = sample(
        lambda z, t, c: never[len(calls)], scheduler("euler"), CLEAN + 1, conditions(), on_step_end=on_step_end
    )
    assert calls == list(enumerate(scheduler("euler").timesteps.tolist()))
    assert torch.equal(result, CLEAN)


@pytest.mark.parametrize("cells", [0, 12, 100])
def test_a_step_is_the_weighted_sum_of_its_evaluations(cells):
    """However they are batched: of two windows and two branches, each on its own span."""
    generator, timeline = torch.Generator().manual_seed(0), replace(conditions(), video_positions_T=latent_positions(4))
    latents, windows = torch.randn(1, 2, 4, 1, 2, generator=generator), Windows(3, 2)
    timeline = replace(timeline, audio_BAD=torch.ones(1, 32, 1), audio_positions_A=token_positions(32))
    batches, plan = [], plan_step(windows, Guidance(Scale.parse(3)).branches(0.0, timeline))

    def velocity(latents, t, conditions):
        batches.append(len(latents))
        return curved(latents, t, conditions) + conditions.audio_BAD.mean(1)[:, None, None, None]

    result = Batched(velocity, cells)(plan, latents, torch.tensor(500.0), timeline)
    assert batches == ([2, 2] if cells else [1] * 4)  # windows differ in audio tokens
    expected = torch.zeros_like(latents)
    for evaluation in plan:
        start, stop = evaluation.span
        noisy, given = latents[:, :, start:stop], timeline.window(start, stop).drop(*evaluation.drops)
        expected[:, :, start:stop] += evaluation.weight_T.view(-1, 1, 1) * velocity(noisy, torch.tensor(500.0), given)
    torch.testing.assert_close(result, expected)


def test_the_transformer_sees_noise_mask_and_reference_in_this_order():
    torch.manual_seed(0)
    transformer = SkyReelsAudioTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=12,
        in_channels=8,
        out_channels=2,
        patch_size=(1, 1, 1),
        text_dim=8,
        freq_dim=8,
        ffn_dim=8,
        num_layers=1,
    ).eval()
    given = conditions(text=1.0)
    latents, t = torch.randn(CLEAN.shape), torch.tensor(700.0)
    stacked = torch.cat([latents, given.known_B4THW, given.reference_BCTHW], dim=1)
    with torch.no_grad():
        expected = transformer(stacked, t.view(1), given.text_BSD).sample
    velocity = TransformerVelocity(transformer)
    assert torch.equal(velocity(latents, t, given), expected)
    assert not torch.equal(velocity(latents, t, given.drop("text")), expected)
