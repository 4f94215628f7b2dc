"""skyreels-audio train, render"""

from pathlib import Path
from typing import Annotated, Any

import typer

from skyreels_audio.cli.options import needs_extra


def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML file, such as recipes/paper-stage1.yaml.")],
    set: Annotated[list[str], typer.Option(help="Replace an entry: optimisation.steps=100. Repeatable.")] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check data, memory, two steps; estimate hours.")] = False,
    price: Annotated[float | None, typer.Option(help="Of an hour of one process's device, for --dry-run.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long. [default: at the last step]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
) -> None:
    """Train what a recipe describes; the same command goes on after any interruption."""
    changes = parse_changes(set)
    with needs_extra("train"):
        if dry_run:
            from skyreels_audio.training.dry_run import dry_run as rehearse

            for line in rehearse(recipe, device, changes, price):
                typer.echo(line)
            return
        from skyreels_audio.training.trainer import train

        weights = train(recipe, minutes=minutes, device=device, changes=changes)
    typer.echo(f"{weights}: trained weights")


def render(recipe: Annotated[Path, typer.Argument(help="Such as recipes/tiny-vae.yaml.")]) -> None:
    """Speak and draw what the decoder of the small model is trained on; the same command goes on after any stop."""
    with needs_extra("train"), needs_extra("synthetic"):
        from skyreels_audio.media import InputError
        from skyreels_audio.training.motion.recipe import MotionRecipe
        from skyreels_audio.training.motion.render import render_pairs
        from skyreels_audio.training.recipe import read_recipe

        wanted = read_recipe(recipe)
        if not isinstance(wanted, MotionRecipe):
            raise InputError(f"{recipe}: only recipes of the task motion are drawn first, not {wanted.task}.")
        render_pairs(wanted)
    typer.echo(f"{wanted.pairs}: clips to train on")


def parse_changes(texts: list[str]) -> dict[str, Any]:
    """ "a.b=c" → {"a.b": c}, c read as YAML."""
    import yaml

    from skyreels_audio.media import InputError

    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InputError(f"--set {text}: write NAME=VALUE, such as optimisation.steps=100.")
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"--set {text}: {value} is no YAML value.") from None
    return changes
