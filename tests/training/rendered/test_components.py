"""Components that training on rendered clips cannot use are refused before it starts."""

import json
from pathlib import Path

import pytest
import yaml

from skyreels_audio.media import InputError
from skyreels_audio.training.recipe import read_recipe
from skyreels_audio.training.rendered.render import _autoencoder

RECIPE = Path(__file__).parents[3] / "recipes" / "tiny.yaml"


@pytest.mark.parametrize("text_encoder", [{"hidden_size": 64}, {"d_model": 64, "pooling": "mean"}, {}])
def test_a_text_encoder_that_is_not_umt5(text_encoder: dict, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(RECIPE.read_text()) | {"text_encoder": text_encoder}))
    with pytest.raises(InputError, match="text_encoder: .*UMT5.*(there is no|d_model is missing)"):
        read_recipe(path)


@pytest.mark.parametrize("config", [{"_class_name": "AutoencoderKLWan"}, {}, None])
def test_another_autoencoder(config: dict | None, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"holds (AutoencoderKLWan; rendered clips|no autoencoder)"):
        _autoencoder(tmp_path)
