import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skyreels_audio.generation.masks import editing_known, latent_frames, lip_weight, to_latent

STEPS = st.integers(1, 5)
FACTOR = 8


def _random_known(steps, seed):
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.random((4 * (steps - 1) + 1, 16, 24)) < 0.99).astype(np.float32))


@settings(max_examples=30)
@given(STEPS, st.integers(0, 99))
def test_a_latent_is_known_only_if_all_its_pixels_are(steps, seed):
    known = _random_known(steps, seed)
    latent = to_latent(known, FACTOR)
    assert latent.shape == (4, steps, 2, 3)
    for c in range(4):
        for i in range(steps):
            frame = known[max(0, 4 * i - 3 + c) if i else 0]
            cells = frame.unflatten(0, (2, FACTOR)).unflatten(-1, (3, FACTOR))
            assert torch.equal(latent[c, i], cells.amin(dim=(1, 3)))


@settings(max_examples=20)
@given(STEPS, st.integers(0, 99), st.integers(0, 99))
def test_knowing_more_pixels_never_hides_a_latent(steps, a, b):
    less = _random_known(steps, a) * _random_known(steps, b)
    assert (to_latent(less, FACTOR) <= to_latent(_random_known(steps, a), FACTOR)).all()


def test_it_folds_as_wan_does():
    """Wan: repeat the first frame four times, then view as (T, 4) and swap."""
    known = torch.arange(9.0)[:, None, None].expand(9, 8, 8) / 8
    wan = torch.cat([known[:1].repeat_interleave(4, dim=0), known[1:]])[:, 0, 0].view(3, 4).T
    assert torch.equal(to_latent(known, FACTOR)[..., 0, 0], wan)


def test_editing_hides_the_box_and_only_the_box():
    boxes = [np.array([4.2, 3.0, 9.5, 7.0])] * 3 + [None, np.array([-5.0, -5.0, 99.0, 99.0])]
    known = editing_known(boxes, (16, 16))
    assert (known[0] == 1).all(), "the first frame is the reference"
    assert (known[1, 3:7, 4:10] == 0).all() and known[1].sum() == 16 * 16 - 4 * 6
    assert (known[3] == 1).all() and (known[4] == 0).all()
    latent = to_latent(known, FACTOR)
    assert latent[0, 1].tolist() == [[0, 0], [1, 1]]


def test_boxes_outside_the_picture_hide_nothing():
    outside = [np.array(box, float) for box in ([-9, -9, -1, -1], [20, 20, 30, 30], [-9, 3, -2, 5])]
    assert (editing_known([None, *outside], (16, 16)) == 1).all()


@settings(max_examples=20)
@given(STEPS, st.floats(0, 1))
def test_lip_weight_keeps_constants_and_stays_in_range(steps, value):
    frames = 4 * (steps - 1) + 1
    assert torch.allclose(lip_weight(torch.full((frames, 16, 24), value), FACTOR), torch.tensor(value), atol=1e-6)
    weight = lip_weight(_random_known(steps, 1), FACTOR)
    assert weight.shape == (steps, 2, 3) and weight.min() >= 0 and weight.max() <= 1


def test_lip_weight_is_taken_at_the_mean_time_of_a_latent():
    ramp = torch.arange(9.0)[:, None, None].expand(9, 16, 16)
    assert torch.allclose(lip_weight(ramp, FACTOR)[:, 0, 0], torch.tensor([0.0, 2.5, 6.5]))


def test_lip_weight_is_where_the_lips_are():
    lips = torch.zeros(5, 64, 64)
    lips[:, 40:46, 24:40] = 1
    weight = lip_weight(lips, 16)[1]
    assert weight[2, 1:3].min() > 0.1
    assert weight[0].sum() == 0 and weight.sum() == pytest.approx(lips[0].sum() / 16**2, rel=0.25)


@pytest.mark.parametrize("frames", [0, 2, 4, 8])
def test_lengths_that_no_latent_has(frames):
    with pytest.raises(ValueError, match=str(frames)):
        latent_frames(frames)


def test_sizes_that_no_latent_has():
    with pytest.raises(ValueError, match="multiple of 16"):
        to_latent(torch.ones(1, 24, 32), 16)
