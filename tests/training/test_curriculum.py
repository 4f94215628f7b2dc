import pytest
import torch
from pydantic import ValidationError

from skyreels_audio.media import InputError
from skyreels_audio.training.curriculum import CONDITIONS, TASKS, Draw, conditions_of
from skyreels_audio.training.recipe import Curriculum, Loss, Quality
from tests.training.flow_parts import CHANNELS, noise_batch

JOINT = Curriculum(image=0.5, editing=0.3, text=0.2)
SMALL = (1, 1, 1, 1, 1)


def draws(curriculum: Curriculum = JOINT, gate: float = 0.0, count: int = 4000) -> Draw:
    return Draw.of(SMALL, curriculum, Loss(mask_gate=gate), 0, 7, range(count))


def chosen(task: str, *dropped: str):
    batch = noise_batch(range(3), 0)
    nothing = {name: torch.tensor([name in dropped] * 3) for name in CONDITIONS}
    return batch, conditions_of(batch, torch.full((3,), TASKS.index(task)), nothing)


def test_tasks_and_drops_come_in_the_stated_shares_each_independently():
    draw = draws(gate=0.25)
    shares = torch.bincount(draw.task_B, minlength=3) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.025, rtol=0)
    dropped = torch.stack([draw.dropped_B[name] for name in CONDITIONS]).float()
    torch.testing.assert_close(dropped.mean(1), torch.full((3,), 0.15), atol=0.02, rtol=0)
    assert abs(float(torch.corrcoef(dropped).fill_diagonal_(0).abs().max())) < 0.05
    edited = draw.task_B == TASKS.index("editing")
    assert 0.11 < float(draw.dropped_B["reference"][edited].float().mean()) < 0.19  # in editing too
    assert 0.22 < float(draw.gated_B.float().mean()) < 0.28


def test_a_samples_lot_is_the_same_whoever_computes_it():
    whole = Draw.of((8, 2, 2, 2, 2), JOINT, Loss(), 3, 11, range(8))
    part = Draw.of((3, 2, 2, 2, 2), JOINT, Loss(), 3, 11, range(4, 7))
    assert torch.equal(part.noise_BCTHW, whole.noise_BCTHW[4:7]) and torch.equal(part.t_B, whole.t_B[4:7])
    assert torch.equal(part.task_B, whole.task_B[4:7])
    other = Draw.of((8, 2, 2, 2, 2), JOINT, Loss(), 3, 12, range(8))
    assert not torch.equal(other.noise_BCTHW, whole.noise_BCTHW)


def test_image_animation_gives_the_first_latent_alone():
    batch, given = chosen("image")
    assert bool((given.known_B4THW[:, :, 0] == 1).all()) and not given.known_B4THW[:, :, 1:].any()
    assert torch.equal(given.reference_BCTHW[:, :, 0], batch.clean_BCTHW[:, :, 0])


def test_editing_gives_all_but_the_region():
    batch, given = chosen("editing")
    assert batch.editing_known_B4THW is not None
    assert torch.equal(given.known_B4THW, batch.editing_known_B4THW) and given.known_B4THW[:, :, 1].any()


@pytest.mark.parametrize(("task", "dropped"), [("text", ()), ("editing", ("reference",)), ("image", ("reference",))])
def test_without_a_reference_nothing_is_known(task, dropped):
    batch, given = chosen(task, *dropped)
    assert not given.known_B4THW.any() and not given.reference_BCTHW.any()
    assert torch.equal(given.text_BSD, batch.conditions.text_BSD)


def test_dropped_audio_and_text_are_the_nulls_of_generation():
    batch, given = chosen("image", "audio", "text")
    expected = batch.conditions.drop("audio", "text")
    assert torch.equal(given.text_BSD, expected.text_BSD) and torch.equal(given.text_BSD, given.null_text_BSD)
    assert given.audio_BAD is not None and not given.audio_BAD.any()


def test_samples_of_one_batch_have_tasks_of_their_own():
    batch = noise_batch(range(3), 0)
    nothing = {name: torch.zeros(3, dtype=torch.bool) for name in CONDITIONS}
    given = conditions_of(batch, torch.tensor([0, 1, 2]), nothing)
    for row, task in enumerate(TASKS):
        assert torch.equal(given.known_B4THW[row], chosen(task)[1].known_B4THW[row])
    assert given.reference_BCTHW.shape[1] == CHANNELS


def test_data_without_masked_videos_cannot_be_edited():
    batch = noise_batch(range(2), 0, editing=False)
    nothing = {name: torch.zeros(2, dtype=torch.bool) for name in CONDITIONS}
    with pytest.raises(InputError, match="no masked ones|has no masked"):
        conditions_of(batch, torch.tensor([0, 1]), nothing)


def test_shares_that_are_no_whole_are_refused():
    with pytest.raises(ValidationError, match="sum to 1.5"):
        Curriculum(image=1.0, editing=0.5)
    with pytest.raises(ValidationError, match="goes up"):
        Curriculum(quality=[Quality(from_step=5)])
