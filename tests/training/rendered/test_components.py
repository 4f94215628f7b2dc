"""Components that training on rendered clips cannot use are refused before it starts."""

import json
from pathlib import Path

import pytest

from skyreels_audio.media import InputError
from skyreels_audio.training.rendered.render import _autoencoder


@pytest.mark.parametrize("config", [{"_class_name": "AutoencoderKLWan"}, {}, None])
def test_another_autoencoder(config: dict | None, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"holds (AutoencoderKLWan; rendered clips|no autoencoder)"):
        _autoencoder(tmp_path)
