import pytest
import torch

from skyreels_audio.models import taef2
from skyreels_audio.models.portrait_autoencoder import PortraitAutoencoder
from skyreels_audio.models.portrait_code import CHOICES, CODE_CHANNELS, backdrop, part, snap
from skyreels_audio.models.portrait_geometry import MAPS, TRAITS, PortraitGeometry


def two_walls(near: float, far: float) -> PortraitGeometry:
    """A mesh of two squares, one before the other: the first, of cloth, over the left half, the second everywhere."""
    geometry = PortraitGeometry(8, 4)
    corners = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    geometry.places_PV3[0, :4, :2] = corners * torch.tensor([0.5, 1])
    geometry.places_PV3[0, 4:, :2] = corners
    geometry.places_PV3[0, :4, 2], geometry.places_PV3[0, 4:, 2] = near, far
    geometry.traits_VK[:4, TRAITS.index("cloth")] = 1
    geometry.hair_SV[:] = geometry.beard_SV[:] = -1
    geometry.triangles_F3[:] = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    geometry.level_F[:] = 40
    return geometry


def code(count: int = 1, seed: int = 0) -> torch.Tensor:
    return snap(torch.rand(count, CODE_CHANNELS, generator=torch.Generator().manual_seed(seed)))


def test_what_is_nearer_hides_what_is_behind():
    cloth = 4 + TRAITS.index("cloth")
    maps = two_walls(near=1.0, far=2.0).draw(code(), 16)
    assert maps.shape == (1, MAPS, 16, 16)
    assert (maps[0, 3] == 1).all()
    assert torch.allclose(maps[0, cloth, :, :8], torch.ones(16, 8), atol=1e-4)
    assert (maps[0, cloth, :, 9:] == 0).all()  # column 8 begins at the nearer one's very edge
    assert (two_walls(near=2.0, far=1.0).draw(code(), 16)[0, cloth] == 0).all()


def test_plain_colours_are_those_of_the_code():
    maps, codes = two_walls(1.0, 2.0).draw(code(), 16), code()
    assert torch.allclose(maps[0, :3, 5, 3], part(codes, "cloth")[0], atol=1e-4)
    assert torch.allclose(maps[0, :3, 5, 12], part(codes, "skin")[0], atol=1e-4)


def test_what_is_not_kept_shows_the_background():
    geometry = two_walls(1.0, 2.0)
    geometry.kept_SV[:] = -1
    codes = code(2)
    assert torch.equal(geometry.draw(codes, 16)[:, :3], backdrop(codes, 16))


def test_snap_makes_every_choice_once_and_keeps_numbers():
    given = torch.rand(3, CODE_CHANNELS)
    snapped = snap(given)
    for name, options in CHOICES.items():
        assert part(snapped, name).shape == (3, len(options))
        assert torch.equal(part(snapped, name).argmax(1), part(given, name).argmax(1))
        assert torch.equal(part(snapped, name).sum(1), torch.ones(3))
    assert torch.equal(part(snapped, "shape"), part(given, "shape"))
    assert torch.equal(snap(snapped), snapped)


def tiny() -> PortraitAutoencoder:
    torch.manual_seed(0)
    vae = PortraitAutoencoder(
        vertices=8, triangles=4, width=8, blocks=1, code_width=8, scale_factor_spatial=32,
        latents_mean=[0.5] * CODE_CHANNELS, latents_std=[0.3] * CODE_CHANNELS,
    ).eval()  # fmt: skip
    vae.geometry.load_state_dict(two_walls(1.0, 2.0).state_dict())
    return vae


def test_decode_draws_one_frame_of_a_portrait_per_code():
    z = torch.rand(2, CODE_CHANNELS, 1, 1, 1)
    sample = tiny().decode(z).sample
    assert sample.shape == (2, 3, 1, 32, 32)
    assert sample.min() >= -1 and sample.max() <= 1
    assert not torch.equal(sample[0], sample[1])
    assert torch.equal(tiny().decode(snap(z.flatten(1))[..., None, None, None]).sample, sample)


def test_saved_and_loaded_in_half_precision_it_draws_the_same(tmp_path):
    z = torch.rand(1, CODE_CHANNELS, 1, 1, 1)
    before = tiny().decode(z).sample
    tiny().half().save_pretrained(tmp_path)
    loaded = PortraitAutoencoder.from_pretrained(tmp_path, torch_dtype=torch.float32)
    assert (loaded.decode(z).sample - before).abs().max() < 0.02


def test_a_code_of_another_length_is_refused():
    with pytest.raises(ValueError, match="z_dim must be"):
        PortraitAutoencoder(z_dim=7)


def test_taef2_halves_three_times_and_has_the_weights_of_the_release():
    encoder, decoder = taef2.encoder(), taef2.decoder()
    latents = encoder(torch.rand(1, 3, 16, 24))
    assert latents.shape == (1, 32, 2, 3) and decoder(latents).shape == (1, 3, 16, 24)
    names = {f"{name}": tuple(value.shape) for name, value in decoder.state_dict().items()}
    assert names["5.pool.1.weight"] == (256,) and names["18.conv.4.bias"] == (64,) and "17.bias" not in names
    assert encoder.state_dict()["13.pool.3.weight"].shape == (64, 256, 1, 1)
