"""skyreels-audio curate, review"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from skyreels_audio.cli.options import needs_extra
from skyreels_audio.cli.progress import Progress


def curate(
    recipe: Annotated[Path, typer.Argument(help="A YAML file, such as recipes/curate.yaml.")],
    input: Annotated[str, typer.Option(help="Folder or URL of videos, or a list of them (.txt, .parquet).")],
    out: Annotated[str, typer.Option(help="Folder or URL for rows, selection, manifest and report.")],
    engine: Annotated[Literal["local", "ray"], typer.Option(help="Where the stages run.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes or actors. [default: the recipe's]")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Score sources again that ended in an error.")] = False,
    pictures: Annotated[bool, typer.Option(help="Show clips in the report.")] = True,
) -> None:
    """Score a pool of video, select by a recipe's limits, write the manifest that training reads.

    The same command goes on after any interruption; with other limits it only selects again, in seconds.
    """
    with needs_extra("curate"):
        from skyreels_audio.curation.engine import curate
        from skyreels_audio.curation.manifest import export_manifest
        from skyreels_audio.curation.recipe import read_recipe
        from skyreels_audio.curation.report import write_report
        from skyreels_audio.curation.select import LIGHT, read_rows, select, write_selection
        from skyreels_audio.curation.storage import Folder

        chosen, folder = read_recipe(recipe), Folder(out)
        with Progress() as progress:
            show = lambda done, total: progress("score", done, total)  # noqa: E731
            outcome = curate(chosen, input, out, engine, workers, retry, show)
        verdicts = select(read_rows(folder, LIGHT), chosen)
        write_selection(verdicts, folder)
        kept = export_manifest(verdicts, folder)
        write_report(verdicts, chosen, folder, pictures)
    hours = sum(each.clip.seconds or 0 for each in verdicts if each.kept) / 3600
    typer.echo(
        f"{out}: {outcome.sources} sources ({outcome.before} finished before, {outcome.scored} scored now), "
        f"{len(verdicts)} clips, kept {kept} ({hours:.2f} h)"
    )
    if outcome.quarantined:
        typer.echo(f"Warning: {outcome.quarantined} sources crash their worker and are quarantined.", err=True)
    if outcome.missing:
        typer.echo(f"Warning: {outcome.missing} sources are not finished; run the same command again.", err=True)


def review(
    recipe: Annotated[Path, typer.Argument(help="The recipe that the pool was curated with.")],
    out: Annotated[Path, typer.Option(help="The folder that curate wrote.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7861,
    host: Annotated[str, typer.Option(help="Who may connect; by default this machine alone.")] = "127.0.0.1",
) -> None:
    """Serve the page on which people check samples of what each stage let through."""
    with needs_extra("curate"):
        import uvicorn

        from skyreels_audio.curation.recipe import read_recipe
        from skyreels_audio.curation.review_page import review_app
        from skyreels_audio.curation.select import LIGHT, read_rows, select
        from skyreels_audio.curation.storage import Folder

        chosen = read_recipe(recipe)
        verdicts = select(read_rows(Folder(out), LIGHT), chosen)
        typer.echo(f"http://{host}:{port}/")
        uvicorn.run(review_app(verdicts, chosen, out), host=host, port=port, log_level="warning")
