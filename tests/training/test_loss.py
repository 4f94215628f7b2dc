import torch
from hypothesis import given
from hypothesis import strategies as st

from skyreels_audio.training.loss import clean_loss, flow_loss, interpolate, motion_weights, region_weights, times
from skyreels_audio.training.recipe import Loss

SHAPE = (2, 3, 2, 4, 4)


def parts(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    clean, noise, velocity = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    return clean, noise, velocity, torch.rand(2, generator=generator)


def ones() -> torch.Tensor:
    return torch.ones(2, 1, 2, 4, 4)


def test_equation_1_is_the_plain_mean_square_of_the_velocity():
    clean, noise, velocity, t = parts()
    by_hand = [(velocity[i] - (noise[i] - clean[i])).pow(2).sum() / velocity[i].numel() for i in range(2)]
    torch.testing.assert_close(flow_loss(velocity, clean, noise, t, ones(), Loss()), torch.stack(by_hand))


def test_the_velocity_points_along_the_path():
    clean, noise, _, t = parts()
    step = 1e-3
    moved = (interpolate(clean, noise, t + step) - interpolate(clean, noise, t)) / step
    assert float(flow_loss(moved, clean, noise, t, ones(), Loss()).max()) < 1e-4
    assert torch.equal(interpolate(clean, noise, torch.zeros(2)), clean)
    assert torch.equal(interpolate(clean, noise, torch.ones(2)), noise)


def test_equation_2_weighs_known_and_unknown():
    """One latent of four is known in two of its four frames: V_m is 1/2 there."""
    clean, noise, velocity, t = parts()
    known = torch.zeros(2, 4, 2, 4, 4)
    known[:, :, 0] = 1
    known[:, :2, 1, :2] = 1
    options = Loss(known_weight=0.5, unknown_weight=2.0)
    weights = region_weights(known, None, torch.zeros(2, dtype=torch.bool), options)
    assert set(weights[:, :, 0].unique().tolist()) == {0.5}
    assert set(weights[:, :, 1, :2].unique().tolist()) == {0.5 * 0.5 + 2.0 * 0.5}
    assert set(weights[:, :, 1, 2:].unique().tolist()) == {2.0}
    error = (velocity - (noise - clean)).square()
    by_hand = 0.5 * error[:, :, 0].sum((1, 2, 3)) + 1.25 * error[:, :, 1, :2].sum((1, 2, 3))
    by_hand = (by_hand + 2.0 * error[:, :, 1, 2:].sum((1, 2, 3))) / error[0].numel()
    torch.testing.assert_close(flow_loss(velocity, clean, noise, t, weights, options), by_hand)


def test_where_the_gate_falls_the_lips_alone_count():
    """L_face: M_lip ⊙ L_mse, mean over all latents."""
    clean, noise, velocity, t = parts()
    lips = torch.zeros(2, 2, 4, 4)
    lips[:, 1, 3, 1:3] = 0.25
    known = torch.zeros(2, 4, 2, 4, 4)
    weights = region_weights(known, lips, torch.tensor([True, False]), Loss(mask_gate=0.5))
    assert torch.equal(weights[0, 0], lips[0]) and bool((weights[1] == 1).all())
    error = (velocity - (noise - clean)).square()
    expected = 0.25 * error[0, :, 1, 3, 1:3].sum() / error[0].numel()
    torch.testing.assert_close(flow_loss(velocity, clean, noise, t, weights, Loss())[0], expected)
    unseen = region_weights(known, torch.zeros_like(lips), torch.tensor([True, True]), Loss())
    assert bool((unseen == 1).all())  # nothing to learn from else


def test_what_moves_counts_more_and_all_of_a_clip_as_much_as_before():
    clean = torch.zeros(2, 3, 4, 2, 2)
    clean[0, :, 2:, 0, 0] = 1.0  # one place that changes once
    weights = motion_weights(clean, 1.0)
    assert float(weights[0, 0, 2, 0, 0]) == float(weights[0].max()) > float(weights[0, 0, 2, 1, 1])
    torch.testing.assert_close(weights[0].mean(), torch.tensor(1.0))
    assert len(weights[1].unique()) == 1  # of a still clip everything is alike


def test_by_region_small_lips_count_as_much_as_large_ones():
    clean, noise, _, t = parts()
    velocity = noise - clean + 1
    small, large = torch.zeros(2, 1, 2, 4, 4), ones()
    small[..., 0, 0] = 0.1
    for weights in (small, large):
        losses = flow_loss(velocity, clean, noise, t, weights, Loss(mean="region"))
        torch.testing.assert_close(losses, torch.ones(2))


def test_capped_weights_are_errors_of_the_clean_latent():
    """Where 4t² < 1 the loss is 4 times the squared error of z - t·v, above it is that of the velocity."""
    clean, noise, velocity, _ = parts()
    t = torch.tensor([0.3, 0.8])
    losses = flow_loss(velocity, clean, noise, t, ones(), Loss(sigma_weight="capped"))
    noisy = interpolate(clean, noise, t)
    predicted = noisy - t.view(-1, 1, 1, 1, 1) * velocity
    torch.testing.assert_close(losses[0], 4 * (predicted[0] - clean[0]).square().mean())
    torch.testing.assert_close(losses[1], (velocity[1] - noise[1] + clean[1]).square().mean())


def test_a_network_of_clean_latents_has_the_loss_of_its_velocity():
    clean, noise, predicted, _ = parts()
    t, weights = torch.tensor([0.3, 0.8]), torch.rand(2, 1, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    velocity = (interpolate(clean, noise, t) - predicted) / t.view(-1, 1, 1, 1, 1)
    expected = flow_loss(velocity, clean, noise, t, weights, Loss(mean="region", sigma_weight="capped"))
    torch.testing.assert_close(clean_loss(predicted, clean, t, weights, torch.ones(3)), expected)
    one_channel = clean_loss(predicted, clean, t, weights, torch.tensor([3.0, 0, 0]))
    torch.testing.assert_close(one_channel, clean_loss(predicted[:, :1], clean[:, :1], t, weights, torch.ones(1)))
    assert bool(clean_loss(predicted, clean, torch.zeros(2), weights, torch.ones(3)).isfinite().all())


@given(st.floats(1, 12), st.floats(0, 1))
def test_times_lie_in_the_unit_interval(shift, share):
    generator = torch.Generator().manual_seed(0)
    uniform, one = torch.rand(2, 256, generator=generator)
    t = times(uniform, one, shift, share)
    assert bool(((t >= 0) & (t <= 1)).all())


def test_times_are_uniform_unless_shifted():
    uniform, one = torch.linspace(0, 1, 101), torch.rand(101)
    assert torch.equal(times(uniform, one, 1.0, 0.0), uniform)
    assert float(times(uniform, one, 5.0, 0.0).mean()) > 0.7
    assert bool((times(uniform, one, 1.0, 1.0) == 1).all())
