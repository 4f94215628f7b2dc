import torch
from hypothesis import given
from hypothesis import strategies as st

from skyreels_audio.training.rendered.loss import flow_loss, interpolate, loss_region, sample_sigmas


def test_clean_error_over_sigma_is_the_velocity_error():
    """Eq. 1: ‖v - u‖² with v = noise - clean, u = (z - predicted) / sigma."""
    clean, noise, predicted = torch.randn(3, 4, 8, 3, 2, 2)
    sigmas = torch.tensor([0.5, 0.7, 0.9, 1.0])  # where the weight is not capped
    noisy = interpolate(clean, noise, sigmas)
    velocity = (noisy - predicted) / sigmas.view(-1, 1, 1, 1, 1)
    expected = (velocity - (noise - clean)).square().mean()
    assert torch.allclose(flow_loss(predicted, clean, sigmas, torch.ones(4, 1, 3, 2, 2)), expected, rtol=1e-4)


@given(st.floats(1, 12), st.floats(0, 1))
def test_sigmas_lie_in_the_unit_interval(shift, share):
    sigmas = sample_sigmas(256, shift, share, torch.Generator().manual_seed(0))
    assert bool(((sigmas >= 0) & (sigmas <= 1)).all())


def test_shift_moves_noise_up():
    low, high = (sample_sigmas(4096, s, 0.0, torch.Generator().manual_seed(0)).mean() for s in (1.0, 5.0))
    assert abs(low - 0.5) < 0.02 and high > 0.7


def test_gate_leaves_only_lips():
    lips = torch.zeros(2, 1, 2, 4, 4)
    lips[:, :, :, 1, 1] = 1
    region = loss_region(lips, torch.ones_like(lips), torch.tensor([True, False]), lip_weight=4.0)
    assert torch.equal(region[0], lips[0]) and bool((region[1] > 0).all())


def test_known_pixels_weigh_little_and_never_as_lips():
    lips = torch.ones(1, 1, 2, 4, 4)
    unknown = torch.zeros_like(lips)
    unknown[:, :, 1] = 1
    region = loss_region(lips, unknown, torch.tensor([False]), lip_weight=4.0)
    assert region[0, 0, 0].max() < 0.1 and region[0, 0, 1].min() == 5.0


def test_clip_without_lips_is_not_gated_away():
    lips = torch.zeros(1, 1, 2, 4, 4)
    assert loss_region(lips, torch.ones_like(lips), torch.tensor([True]), 4.0).sum() > 0
