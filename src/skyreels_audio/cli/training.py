"""skyreels-audio train"""

from pathlib import Path
from typing import Annotated

import typer

from skyreels_audio.cli.options import needs_extra


def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML file, such as recipes/tiny.yaml.")],
    minutes: Annotated[float | None, typer.Option(help="Stop after so long. [default: at the last step]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
) -> None:
    """Train what a recipe describes; the same command goes on after any interruption."""
    with needs_extra("train"):
        from skyreels_audio.training.trainer import train

        weights = train(recipe, minutes=minutes, device=device)
    typer.echo(f"{weights}: trained weights")
