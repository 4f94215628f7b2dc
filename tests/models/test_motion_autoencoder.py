"""The small autoencoder: codes in latents, a decoder that sees only neighbourhoods, and pixels that are moved."""

import pytest
import torch

from skyreels_audio.models.motion_autoencoder import (
    CHANNELS,
    FACE_CHANNELS,
    REST,
    Motion,
    MotionAutoencoder,
    pack,
    unpack,
    warp,
)


def autoencoder() -> MotionAutoencoder:
    torch.manual_seed(0)
    return MotionAutoencoder(widths=(8, 12, 16, 24), code_width=16).eval()


def test_codes_survive_their_latents() -> None:
    codes = torch.randn(2, 9, len(CHANNELS), generator=torch.Generator().manual_seed(0))
    latents = pack(codes)
    assert latents.shape == (2, 4 * len(CHANNELS), 3, 1, 1)
    assert torch.equal(unpack(latents), codes)
    assert torch.equal(latents[:, : len(CHANNELS), 0, 0, 0], codes[:, 0])  # frame 0 alone, four times


def test_frames_must_fill_their_latents() -> None:
    with pytest.raises(ValueError, match="8 frames do not fill"):
        pack(torch.zeros(1, 8, len(CHANNELS)))


def test_frames_that_are_their_own_source_are_at_rest() -> None:
    latents = autoencoder().encode(torch.rand(1, 3, 5, 256, 256)).latent_dist.mode()
    assert latents.shape == (1, 4 * len(CHANNELS), 2, 1, 1)
    assert torch.equal(unpack(latents)[0, 3], torch.tensor(REST))


def test_flow_points_to_where_a_pixel_comes_from() -> None:
    source = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    flow = torch.zeros(1, 2, 16, 24)
    flow[:, 0], flow[:, 1] = 3, -2
    moved = warp(source, flow)
    assert torch.allclose(moved[..., 2:, :-3], source[..., :-2, 3:], atol=1e-5)


GREY = torch.tensor([[0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 1.0]])  # light
TEETH = torch.ones(4, 4, 4)


def test_what_is_painted_replaces_what_is_moved() -> None:
    source, colour = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)
    painted = torch.zeros(1, 1, 8, 8)
    painted[..., 4:] = 1
    nothing, none = torch.zeros(1, 2, 8, 8), painted * 0
    made = Motion(nothing, painted, colour, none, nothing, none, none).apply(source, GREY, TEETH)
    assert torch.equal(made[..., :4], source[..., :4]) and torch.equal(made[..., 4:], colour[..., 4:])


def test_own_teeth_stay_where_they_are_and_are_not_carried_by_lips() -> None:
    """Lips that move down by four pixels uncover the upper half of the teeth again, and take none of them along."""
    source = torch.zeros(1, 3, 16, 8)
    source[..., 4:8, :] = 0.9  # teeth
    bared, inside, nothing = torch.zeros(1, 1, 16, 8), torch.zeros(1, 1, 16, 8), torch.zeros(1, 1, 16, 8)
    bared[..., 4:8, :], inside[..., 4:6, :] = 1, 1
    flow = torch.zeros(1, 2, 16, 8)
    flow[:, 1] = -4
    colour = torch.full((1, 3, 16, 8), -0.5)
    made = Motion(flow, nothing, colour, inside, flow * 0, nothing, bared).apply(source, GREY, TEETH)
    assert torch.equal(made[..., 4:6, :], source[..., 4:6, :])  # where they were
    assert torch.equal(made[..., 8:12, :], colour[..., 8:12, :])  # what the flow would have carried is painted


def test_one_source_serves_many_codes() -> None:
    vae, source = autoencoder(), torch.rand(1, 3, 160, 128, generator=torch.Generator().manual_seed(0))
    codes = torch.rand(3, len(FACE_CHANNELS), generator=torch.Generator().manual_seed(1))
    together = vae.move(codes, vae.read_source(source))
    alone = vae.move(codes[1:2], vae.read_source(source))
    assert together.flow_B2HW.shape == (3, 2, 160, 128)
    assert torch.allclose(together.flow_B2HW[1:2], alone.flow_B2HW, atol=1e-5)


def test_a_band_is_decoded_like_the_whole_face() -> None:
    """The further from the cut the more: there is no norm over the picture, and places are those of the box."""
    vae, source = autoencoder(), torch.rand(1, 3, 160, 128, generator=torch.Generator().manual_seed(0))
    codes, rows = torch.rand(1, len(FACE_CHANNELS), generator=torch.Generator().manual_seed(1)), slice(48, 160)
    for block in vae.decoder.modules():
        if isinstance(block, torch.nn.Conv2d):
            torch.nn.init.normal_(block.weight, std=0.05, generator=torch.Generator().manual_seed(2))
    whole = vae.move(codes, vae.read_source(source)).flow_B2HW[..., rows, :]
    band = vae.move(codes, vae.read_source(source[:, :, rows], rows)).flow_B2HW
    error = (whole - band).abs().mean((0, 1, 3))
    assert error[-16:].mean() < 0.3 * error[:16].mean() and error[-16:].mean() < 0.03 * whole.abs().mean()


def test_a_box_that_the_scales_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        MotionAutoencoder(box=(0.25, 0.25, 0.75, 0.8))


def test_on_meta_all_of_it_is_after_transformers_made_a_model_there() -> None:
    from torch.utils._device import _device_constructors
    from transformers.initialization import meta_device_safe_creation_ops

    _device_constructors.cache_clear()
    with meta_device_safe_creation_ops(), torch.device("meta"):
        torch.empty(1)  # torch remembers what makes tensors, another linspace among it
    with torch.device("meta"):
        model = MotionAutoencoder()
    _device_constructors.cache_clear()
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
