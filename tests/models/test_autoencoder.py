from typing import Any

import pytest
import torch

from skyreels_audio.models.autoencoder import CausalVideoAutoencoder, blocks_of, fit_klt


@pytest.fixture(scope="module")
def autoencoder() -> CausalVideoAutoencoder:
    torch.manual_seed(0)
    model = CausalVideoAutoencoder(z_dim=8, coarse_width=16, coarse_blocks=1, fine_width=8, fine_blocks=1)
    mean, basis, _ = fit_klt(blocks_of(torch.randn(3, 16, 64, 64).cumsum(-1).tanh()), 8)
    model.mean_block.copy_(mean)
    model.basis.copy_(basis)
    torch.nn.init.normal_(model.fine_out.weight, std=0.05)  # zero when fresh, which would hide the learned part
    return model.eval()


def smooth_video(frames: int) -> torch.Tensor:
    return torch.randn(1, 3, frames, 32, 48, generator=torch.Generator().manual_seed(1)).cumsum(-1).mul(0.1).tanh()


def test_shapes(autoencoder):
    latents = autoencoder.encode(smooth_video(9)).latent_dist.mode()
    assert latents.shape == (1, 8, 3, 2, 3)
    assert autoencoder.decode(latents).sample.shape == (1, 3, 9, 32, 48)


@torch.no_grad()
def test_stream_equals_whole(autoencoder):
    latents = torch.randn(1, 8, 7, 2, 3)
    whole = autoencoder.decode(latents).sample
    for chunk in (1, 2, 3, 8):
        assert torch.allclose(torch.cat(list(autoencoder.decode_stream(latents, chunk)), 2), whole, atol=1e-5)


@torch.no_grad()
def test_causal(autoencoder):
    video = smooth_video(13)
    changed = video.clone()
    changed[:, :, 9:] += 1
    before, after = (autoencoder.encode(v).latent_dist.mode() for v in (video, changed))
    assert torch.equal(before[:, :, :3], after[:, :, :3]) and not torch.equal(before[:, :, 3], after[:, :, 3])
    before, after = autoencoder.decode(before).sample, autoencoder.decode(after).sample
    assert torch.equal(before[:, :, :9], after[:, :, :9])


@torch.no_grad()
def test_a_single_frame_is_the_first_latent_of_a_video(autoencoder):
    video = smooth_video(9)
    still = autoencoder.encode(video[:, :, :1]).latent_dist.mode()
    assert torch.allclose(still, autoencoder.encode(video).latent_dist.mode()[:, :, :1], atol=1e-6)


@torch.no_grad()
def test_untrained_synthesis_is_the_best_linear_one():
    """Without its learned part, decode(encode(x)) is the orthogonal projection on the basis."""
    model: Any = CausalVideoAutoencoder(z_dim=8, coarse_width=8, coarse_blocks=1, fine_width=8, fine_blocks=1)
    data = torch.randn(3, 8, 64, 64).cumsum(-1).tanh()
    mean, basis, std = fit_klt(blocks_of(data), 8)
    model.mean_block.copy_(mean)
    model.basis.copy_(basis)
    assert torch.allclose(basis @ basis.T, torch.eye(8), atol=1e-4) and bool((std.diff() <= 1e-6).all())
    video = data[None, :, :5, :32, :48] * 0.5
    reconstruction = model.decode(model.encode(video).latent_dist.mode()).sample
    blocks = blocks_of(torch.cat([video[0, :, :1].expand(-1, 3, -1, -1), video[0]], 1))
    projected = (blocks - mean) @ basis.T @ basis + mean
    expected = (projected - blocks).square().reshape(2, -1)[1:].mean()  # frames 1 to 4
    got = (reconstruction[:, :, 1:] - video[:, :, 1:]).square().mean()
    assert got == pytest.approx(float(expected), rel=0.05)


def test_save_and_load(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path)
    loaded: Any = CausalVideoAutoencoder.from_pretrained(tmp_path).eval()
    latents = torch.randn(1, 8, 2, 2, 2)
    with torch.no_grad():
        assert torch.equal(autoencoder.decode(latents).sample, loaded.decode(latents).sample)


def test_odd_sizes_are_refused(autoencoder):
    with pytest.raises(ValueError, match="divisible by 16"):
        autoencoder.encode(torch.zeros(1, 3, 5, 30, 32))
