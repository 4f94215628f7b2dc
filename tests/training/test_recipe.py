"""Recipes are read whole, or refused in one sentence."""

from pathlib import Path

import pytest
import yaml

from skyreels_audio.media import InputError
from skyreels_audio.training.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    "path", sorted(set(RECIPES.glob("*.yaml")) - set(RECIPES.glob("curate*"))), ids=lambda p: p.name
)
def test_the_projects_own_recipes_can_be_read(path: Path) -> None:
    assert read_recipe(path).optimisation.steps


@pytest.mark.parametrize("text_encoder", [{"hidden_size": 64}, {"d_model": 64, "pooling": "mean"}, {}])
@pytest.mark.parametrize("name", ["tiny", "tiny-portrait"])
def test_a_text_encoder_that_is_not_umt5(name: str, text_encoder: dict, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()) | {"text_encoder": text_encoder})
    )
    with pytest.raises(InputError, match="text_encoder: .*UMT5.*(there is no|d_model is missing)") as refused:
        read_recipe(path)
    assert "\n" not in str(refused.value)
