import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from skyreels_audio.generation import sampling
from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.sampling import Hybrid, TransformerVelocity, sample
from skyreels_audio.models.rope import latent_positions
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


@given(st.integers(0, 6))
def test_hybrid_shows_the_video_to_the_first_steps_only(steps):
    timesteps = scheduler("euler").timesteps
    seen = []
    switch = float(timesteps[steps - 1]) if steps else float("inf")
    hybrid = Hybrid(lambda z, t, c: seen.append(c.key) or z, conditions().window(0, 3), switch)
    for t in timesteps:
        hybrid(CLEAN, t, conditions())
    assert seen == [()] * steps + [("0:3",)] * (6 - steps)


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
