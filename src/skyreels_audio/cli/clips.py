"""skyreels-audio manifest, precompute, check-data: what a training is given."""

from pathlib import Path
from typing import Annotated

import typer

from skyreels_audio.cli.options import needs_extra
from skyreels_audio.cli.progress import Progress


def manifest(
    folder: Annotated[Path, typer.Argument(help="Videos of one speaker each, without cuts.")],
    out: Annotated[Path, typer.Option(help="The manifest, a Parquet file.")],
    caption: Annotated[str, typer.Option(help="What they show. A text file beside a video counts more.")] = "",
    language: Annotated[str | None, typer.Option(help="Of the speech, such as en.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the videos come from.")] = None,
    licence: Annotated[str | None, typer.Option(help="Under which terms.")] = None,
    seconds: Annotated[float, typer.Option(min=0.4, help="Longer videos are cut into clips of at most this.")] = 10.0,
    faces_every: Annotated[int, typer.Option(min=1, help="Look for faces in every n-th frame: boxes, no lips.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Make a manifest of a folder of videos; the same command goes on after any interruption."""
    with needs_extra("train"), Progress() as progress:
        from skyreels_audio.training.folder import Told, index_folder

        told = Told(caption, language, source, licence, seconds, faces_every)
        rows, problems = index_folder(folder, out, told, workers, lambda done, total: progress("faces", done, total))
    for problem in problems:
        typer.echo(f"Left out: {problem}", err=True)
    hours = sum(row.seconds for row in rows) / 3600
    typer.echo(f"{out}: {len(rows)} clips, {hours:.2f} hours; {len(problems)} videos left out")


def precompute(
    manifest: Annotated[Path, typer.Argument(help="A Parquet file, or a folder of them.")],
    model: Annotated[Path, typer.Option(help="Model folder, whose encoders are used.")],
    out: Annotated[Path, typer.Option(help="The folder of shards.")],
    size: Annotated[list[str], typer.Option(help="WIDTHxHEIGHT; several: each clip takes the nearest shape.")],
    latents: Annotated[list[int], typer.Option(min=2, help="Lengths in latent frames; longest first.")] = [21],  # noqa: B006
    fps: Annotated[float, typer.Option(min=1, help="Frames per second that clips of any rate become.")] = 25.0,
    held_out: Annotated[float, typer.Option(min=0, max=1, help="Share of files that is never trained on.")] = 0.02,
    workers: Annotated[int, typer.Option(min=1, help="Processes. Under torchrun: of each rank.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
) -> None:
    """Encode the clips of a manifest for training; the same command goes on, and redoes what has changed."""
    from skyreels_audio.cli.options import parse_size

    sizes = tuple((height, width) for width, height in (parse_size(text) for text in size))
    with needs_extra("train"), Progress() as progress:
        from skyreels_audio.training.precompute import Precompute, precompute

        job = Precompute(manifest, model, out, sizes, tuple(latents), fps, held_out, device)
        counts = precompute(job, workers, lambda done, total: progress("encode", done, total))
    left_out = f"; {counts['left_out']} left out, see left_out.jsonl" if counts["left_out"] else ""
    typer.echo(f"{out}: {counts['wanted']} samples, {counts['made']} of them made now{left_out}")


def check_data(
    folder: Annotated[Path, typer.Argument(help="The folder, usually data.")] = Path("data"),
) -> None:
    """Compare a folder with the list of what the project's recipes were trained on: sources, licences, hashes."""
    from skyreels_audio.media import InputError
    from skyreels_audio.training.data_folder import check_data

    found = check_data(folder)
    for part, fault in found:
        typer.echo(f"{part.path}: {fault or 'as listed'}  ({part.files} files, {part.licence}; {part.source})")
    wrong = [part.path for part, fault in found if fault]
    if wrong:
        raise InputError(f"{folder} is not what the list says: {', '.join(wrong)}.")
