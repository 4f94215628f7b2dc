from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from skyreels_audio.generation.decoding import decode
from skyreels_audio.generation.latents import latent_statistics

WAN: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": 4,
    "num_res_blocks": 1,
    "latents_mean": [0.3] * 4,
    "latents_std": [2.0] * 4,
}


@pytest.mark.parametrize("latents", [1, 4])
@pytest.mark.parametrize("patched", [False, True])
def test_streaming_is_decoding_at_once(patched, latents):
    torch.manual_seed(0)
    patch: dict[str, Any] = {"patch_size": 2, "in_channels": 12, "out_channels": 12} if patched else {}
    vae: Any = AutoencoderKLWan(dim_mult=[1, 2, 2, 1], **WAN, **patch).eval()
    z = torch.randn(1, 4, latents, 2, 3)
    mean, std = latent_statistics(vae, z)
    with torch.no_grad():
        whole = vae.decode(z * std + mean).sample[0].permute(1, 2, 3, 0)
    frames = torch.stack(list(decode(z.clone(), vae)))
    assert frames.dtype == torch.uint8 and len(frames) == 4 * (latents - 1) + 1
    assert (frames.float() - (whole + 1) * 127.5).abs().max() <= 0.5 + 1e-3
