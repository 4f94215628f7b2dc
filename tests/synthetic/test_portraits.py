import numpy as np
import torch

from skyreels_audio.models.portrait_code import CHOICES, CODE_CHANNELS, SHAPING, backdrop, part
from skyreels_audio.synthetic.captions import description
from skyreels_audio.synthetic.portrait_mesh import _places, fit_mesh
from skyreels_audio.synthetic.portraits import draw_background, sample_portrait


def test_a_code_says_what_is_known_of_the_portrait():
    portraits = [sample_portrait(seed) for seed in range(6)]
    codes = torch.from_numpy(np.stack([portrait.code_C for portrait in portraits]))
    assert codes.shape == (6, CODE_CHANNELS) and len(codes.unique(dim=0)) == 6
    for name, options in CHOICES.items():
        said = [options[i] for i in part(codes, name).argmax(1)]
        assert said == [portrait.attributes[name] for portrait in portraits]
    assert np.array_equal(sample_portrait(3).code_C, portraits[3].code_C)


def test_a_plain_background_is_the_backdrop_of_its_code():
    portrait = next(p for p in map(sample_portrait, range(40)) if p.attributes["background"] == "gradient")
    shown = backdrop(torch.from_numpy(portrait.code_C)[None], 160)[0].permute(1, 2, 0).numpy()
    assert np.abs(255 * shown.clip(0, 1) - portrait.background.picture).max() <= 1
    grey = draw_background("plain", np.full((3, 3, 3), 0.4))
    assert grey.colour == "grey" and np.ptp(grey.picture) == 0


def test_the_mesh_finds_the_faces_of_people_whom_it_was_not_fitted_to():
    mesh = fit_mesh(range(1, 161, 2))
    assert int(mesh["triangles_F3"].max()) < len(mesh["traits_VK"])
    errors = []
    for seed in (500, 502, 504, 506):
        portrait = sample_portrait(seed)
        code = torch.from_numpy(portrait.code_C)[None]
        shaping = torch.cat([torch.ones(1, 1), *(part(code, name) for name in SHAPING)], 1)[0]
        made = torch.einsum("p,pvc->vc", shaping, mesh["places_PV3"])[:, :2].numpy()
        true = _places(portrait)[:, :2]
        # the mesh keeps some of the vertices, in their order: each must be near one of the person's
        nearest = np.abs(made[::40, None] - true[None]).max(-1).min(1)
        errors.append(np.quantile(nearest, 0.9))
    assert max(errors) < 0.008  # two pixels of 256


def test_a_description_tells_what_it_is_asked_to():
    attributes = sample_portrait(2).attributes
    texts = [description(attributes, np.random.default_rng(n), 1.0) for n in range(8)]
    assert len(set(texts)) > 4
    for text in texts:
        assert str(attributes["background_colour"]) in text and str(attributes["eyes"]) in text
    assert "background" not in description(attributes, np.random.default_rng(0), 0.0)
