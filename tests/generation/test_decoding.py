from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from skyreels_audio.generation.decoding import CompositeLatents, decode
from skyreels_audio.generation.latents import latent_statistics
from skyreels_audio.models.autoencoder import CausalVideoAutoencoder

WAN: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 4,
    "num_res_blocks": 1,
    "latents_mean": [0.3] * 4,
    "latents_std": [2.0] * 4,
}


@pytest.mark.parametrize("patched", [False, True])
def test_streaming_wan_is_decoding_at_once(patched):
    torch.manual_seed(0)
    patch: dict[str, Any] = {"patch_size": 2, "in_channels": 12, "out_channels": 12} if patched else {}
    vae = AutoencoderKLWan(dim_mult=[1, 2, 2, 1], **WAN, **patch).eval()
    assert_streams(vae, channels=4)


@pytest.mark.parametrize("latents", [1, 2, 19])
def test_streaming_ours_is_decoding_at_once(latents):
    torch.manual_seed(0)
    vae = CausalVideoAutoencoder(
        z_dim=6, coarse_width=8, fine_width=8, latents_mean=[0.3] * 6, latents_std=[2.0] * 6
    ).eval()
    torch.nn.init.normal_(vae.fine_out.weight, std=0.1)
    assert_streams(vae, channels=6, latents=latents)


def assert_streams(vae, channels: int, latents: int = 4) -> None:
    z = torch.randn(1, channels, latents, 2, 3)
    mean, std = latent_statistics(vae, z)
    with torch.no_grad():
        whole = vae.decode(z * std + mean).sample[0].permute(1, 2, 3, 0)
    frames = torch.stack(list(decode(z.clone(), vae)))
    assert frames.dtype == torch.uint8 and len(frames) == 4 * (latents - 1) + 1
    assert (frames.float() - (whole + 1) * 127.5).abs().max() <= 0.5 + 1e-3


def test_a_box_of_latents_stands_in_its_reference():
    inner, reference = torch.randn(1, 2, 9, 2, 3), torch.randn(1, 2, 4, 5, 6)
    composite = CompositeLatents(inner, reference, slice(1, 3), slice(2, 5))
    assert composite.shape == (1, 2, 9, 5, 6)
    whole = torch.cat([reference, reference[:, :, -1:].expand(-1, -1, 5, -1, -1)], dim=2)
    whole[..., 1:3, 2:5] = inner
    for time in (slice(0, 9), slice(2, 6), slice(5, 20)):
        assert torch.equal(composite[:, :, time], whole[:, :, time])
    before = reference.clone()
    composite[:, :, 0:4].zero_()
    assert torch.equal(reference, before)
