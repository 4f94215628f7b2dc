import math

import pytest
import torch

from skyreels_audio.generation.conditions import Conditions
from skyreels_audio.generation.guidance import Guidance, Scale, latent_voice_activity
from skyreels_audio.generation.step import Batched, plan_step
from skyreels_audio.generation.windows import Windows
from skyreels_audio.models.rope import latent_positions, token_positions


def conditions(audio: bool = True, activity_T: torch.Tensor | None = None) -> Conditions:
    return Conditions(
        text_BSD=torch.full((1, 1, 1), 2.0),
        null_text_BSD=torch.full((1, 1, 1), 1.0),
        audio_BAD=torch.full((1, 3, 1), 3.0) if audio else None,
        audio_positions_A=torch.arange(3) + 0.5 if audio else None,
        reference_BCTHW=torch.full((1, 1, 2, 1, 1), 5.0),
        known_B4THW=torch.ones(1, 4, 2, 1, 1),
        video_positions_T=latent_positions(2),
        voice_activity_T=activity_T,
    )


def velocity(latents_BCTHW, t, conditions):
    """A non-linear number made of the conditions, so every branch has its own."""
    audio = 0.0 if conditions.audio_BAD is None else conditions.audio_BAD.mean()
    text, reference = conditions.text_BSD.mean(), conditions.reference_BCTHW.mean()
    return latents_BCTHW + (text**2 + 1) * (audio + 2) + reference**2


def guided(audio_scale, text_scale, progress=0.0, given=None, **options):
    """The guided velocity, and what its evaluations drop."""
    guidance = Guidance(Scale.parse(audio_scale), Scale.parse(text_scale), **options)
    given = given or conditions()
    plan = plan_step(Windows(), guidance.branches(progress, given))
    value = Batched(velocity)(plan, torch.zeros(1, 1, 2, 1, 1), torch.tensor(1000.0), given)
    return value, [set(evaluation.drops) for evaluation in plan]


BOTH, NO_AUDIO, NO_TEXT, NOTHING = 5 * 5 + 25, 5 * 2 + 25, 2 * 5 + 25, 2 * 2


@pytest.mark.parametrize(("s_a", "s_t"), [(4.5, 5.0), (1, 3), (2, 1), (0.5, 0.2), (1, 1)])
def test_guidance_is_equation_3(s_a, s_t):
    value, _ = guided(s_a, s_t)
    expected = NOTHING + s_t * (NO_AUDIO - NOTHING) + s_a * (BOTH - NO_AUDIO)
    torch.testing.assert_close(value, torch.full_like(value, expected))


def test_text_last_exchanges_text_and_audio():
    value, _ = guided(4.5, 5.0, order="text_last")
    expected = NOTHING + 4.5 * (NO_TEXT - NOTHING) + 5.0 * (BOTH - NO_TEXT)
    torch.testing.assert_close(value, torch.full_like(value, expected))


def test_only_needed_branches_are_evaluated():
    full, no_audio, nothing = set(), {"audio"}, {"text", "audio", "reference"}
    assert guided(1, 1)[1] == [full]
    assert guided(4.5, 1)[1] == [full, no_audio]
    assert guided(1, 5)[1] == guided(4.5, 5)[1] == [full, no_audio, nothing]
    assert guided(3, 3)[1] == [full, nothing]  # v(text, ∅) weighs nothing where the scales are equal
    without_audio = {"text", "reference"}  # what is not there cannot be dropped
    assert guided(4.5, 5, given=conditions(audio=False))[1] == [full, without_audio]
    assert guided(4.5, 1, given=conditions(audio=False))[1] == [full]
    assert guided(1, 5, given=conditions().drop("audio"))[1] == [full, without_audio]


def test_the_last_branch_drops_what_the_checkpoint_says():
    value, drops = guided(1, 3, unconditional_drops=("text", "audio"))
    assert drops[-1] == {"text", "audio"}
    torch.testing.assert_close(value, torch.full_like(value, BOTH + 2 * (NO_AUDIO - (NOTHING + 25))))


def test_silence_takes_no_audio_guidance_but_keeps_text_guidance():
    value, _ = guided(4.5, 3, given=conditions(activity_T=torch.tensor([1.0, 0.0])))
    text = 2 * (NO_AUDIO - NOTHING)
    assert value.flatten().tolist() == [BOTH + 3.5 * (BOTH - NO_AUDIO) + text, BOTH + text]
    assert guided(4.5, 1, given=conditions(activity_T=torch.zeros(2)))[1] == [set()]


def test_scales_follow_their_schedules():
    assert [Scale.parse(4.5)(p) for p in (0, 1)] == [4.5, 4.5]
    assert [Scale.parse("linear:1→4")(p) for p in (0, 0.5, 1)] == [1, 2.5, 4]
    cosine = Scale.parse("cosine: 1 -> 4.5")
    assert cosine == Scale.parse("cosine:1→4.5")
    assert [cosine(p) for p in (0, 0.5, 1)] == pytest.approx([1, 2.75, 4.5])
    assert cosine(0.25) == pytest.approx(1 + 3.5 * (1 - math.cos(math.pi / 4)) / 2)
    assert [Scale.parse("interval:4.5@0.1-0.8")(p) for p in (0, 0.1, 0.5, 0.8, 0.9)] == [1, 4.5, 4.5, 4.5, 1]


def test_guidance_follows_the_progress_of_the_run():
    at = {progress: guided("linear:1→10", 1, progress)[0].mean().item() for progress in (0.0, 5 / 9, 1.0)}
    per_unit = BOTH - NO_AUDIO
    assert at == pytest.approx({0.0: BOTH, 5 / 9: BOTH + 5 * per_unit, 1.0: BOTH + 9 * per_unit})
    assert len(guided("interval:4.5@0.5-1", 1, 0.0)[1]) == 1


@pytest.mark.parametrize(
    ("audio", "text", "changes"),
    [(4.5, 1, False), ("linear:2→4", 1, False), ("interval:4@0.1-0.8", 1, True), (4, "linear:1→4", True)],
)
def test_branches_that_come_and_go_are_known_before_a_run(audio, text, changes):
    assert Guidance(Scale.parse(audio), Scale.parse(text)).branches_change(6) == changes


@pytest.mark.parametrize("text", ["", "four", "cosine:1", "interval:4@0.8-0.1", "interval:4@0-2", "-3", "linear:1→x"])
def test_other_scales_are_refused(text):
    with pytest.raises(ValueError, match="guidance scale"):
        Scale.parse(text)


def test_a_latent_has_the_voice_of_its_own_time():
    positions = latent_positions(6)
    activity = torch.zeros(50)
    activity[20:23] = torch.tensor([0.2, 0.9, 0.4])  # 0.42 … 0.45 s: frame 10 and 11, latent 3
    assert latent_voice_activity(activity, token_positions(50), positions).tolist() == pytest.approx(
        [0, 0, 0, 0.9, 0, 0]
    )
