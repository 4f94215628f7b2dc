from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from skyreels_audio.generation.latents import PIECE, build_reference, encode
from skyreels_audio.models.motion_autoencoder import MotionAutoencoder


def motion() -> Any:
    return MotionAutoencoder(widths=(8, 8, 8, 8), scale_factor_spatial=32)


def wan(**options: Any) -> Any:
    return AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 2, 2, 1], num_res_blocks=1, **options)


@pytest.mark.parametrize("make", [motion, wan, lambda: wan(patch_size=2, in_channels=12, out_channels=12)])
@pytest.mark.parametrize("lengths", [[1], [9], [1, 4], [5, 8, 4], [1, 8, 8]])
def test_encoding_in_pieces_is_encoding_at_once(make, lengths):
    torch.manual_seed(0)
    vae, video = make().eval(), torch.randn(1, 3, sum(lengths), 32, 32)
    with torch.no_grad():
        whole = vae.encode(video).latent_dist.mode()
    torch.testing.assert_close(encode(video.split(lengths, dim=2), vae), whole, atol=1e-5, rtol=1e-5)


def test_a_video_that_ends_within_a_latent_goes_on_with_its_last_frame():
    rng, vae = np.random.default_rng(0), wan(latents_mean=[0.1] * 4, latents_std=[2.0] * 4).eval()
    video = rng.integers(0, 256, (PIECE + 3, 32, 32, 3), dtype=np.uint8)
    known = rng.random((PIECE + 3, 32, 32)) < 0.99
    held = [*range(PIECE + 3), *[PIECE + 2] * 2]
    latents = PIECE // 4 + 2
    given, whole = build_reference(video, known, latents, vae), build_reference(video[held], known[held], latents, vae)
    assert all(torch.equal(a, b) for a, b in zip(given, whole, strict=True))
