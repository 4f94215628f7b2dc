"""skyreels-audio synthesize"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from skyreels_audio.cli.options import needs_extra, parse_size


def synthesize(
    clips: Annotated[int, typer.Option(min=1, help="How many clips the folder shall hold.")],
    out: Annotated[Path, typer.Option(help="The folder.")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT, or one SIDE.")] = "256",
    frames: Annotated[int, typer.Option(min=1, help="Length of a clip, at 25 frames per second.")] = 81,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    stage: Annotated[Literal["mouth", "slight", "full"], typer.Option(help="How much moves.")] = "full",
    photographs: Annotated[Path | None, typer.Option(help="Folder of portraits to animate too.")] = None,
    recordings: Annotated[Path | None, typer.Option(help="Folder of GRID clips whose voice to use too.")] = None,
    speech: Annotated[Path | None, typer.Option(help="Speech bank made before. [default: made in --out]")] = None,
) -> None:
    """Render talking heads with exact labels; the same command goes on after any interruption."""
    from skyreels_audio.media import InputError

    width, height = parse_size(size)
    try:
        with needs_extra("synthetic"):
            from skyreels_audio.synthetic.dataset import synthesize

            synthesize(clips, out, seed, (height, width), frames, workers, stage, photographs, recordings, speech)
    except ValueError as error:
        raise InputError(str(error)) from error
    typer.echo(f"{out}: {clips} clips")
