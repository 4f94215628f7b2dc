"""skyreels-audio app"""

from pathlib import Path
from typing import Annotated

import typer

from skyreels_audio.bundled import bundled
from skyreels_audio.cli.options import needs_extra

TOKEN = "What visitors must show; needed as soon as --host is not this machine alone."
WORKERS = "Processes of this machine that make videos; 0 leaves it to others on the same --redis."
ONLY = "Serve no page: only make videos for the servers of --redis and --results."


def app(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    token: Annotated[str | None, typer.Option(envvar="SKYREELS_TOKEN", help=TOKEN)] = None,
    model: Annotated[Path | None, typer.Option(help="Checkpoint folder. [default: weights/tiny]")] = None,
    data: Annotated[Path, typer.Option(help="Folder for the queue, uploads and results.")] = Path("outputs/app"),
    results: Annotated[str | None, typer.Option(help="fsspec URL for results. [default: in --data]")] = None,
    redis: Annotated[str | None, typer.Option(help="redis://… shared by several machines. [default: SQLite]")] = None,
    workers: Annotated[int, typer.Option(min=0, help=WORKERS)] = 1,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the page, or the API alone.")] = True,
    worker_only: Annotated[bool, typer.Option("--worker-only", help=ONLY)] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    keep_gb: Annotated[float, typer.Option(min=0.01, help="Disk for results; the oldest go first.")] = 5.0,
    upload_mb: Annotated[int, typer.Option(min=1, help="Largest file that is taken.")] = 200,
    voice_seconds: Annotated[float, typer.Option(min=1, help="Longest voice that is taken.")] = 300.0,
) -> None:
    """Open a page where a picture, a video or words become a talking video; the same over HTTP under /api/docs."""
    from skyreels_audio.media import InputError

    if worker_only and not redis:
        raise InputError("--worker-only needs --redis, through which the work comes.")
    with needs_extra("app"):
        from skyreels_audio.app.options import Options
        from skyreels_audio.app.server import serve
        from skyreels_audio.app.worker import Worker
    options = Options(
        model=str((model or bundled("weights/tiny")).resolve()),
        data=str(data),
        results=results,
        redis=redis,
        host=host,
        port=port,
        token=token,
        workers=workers,
        device=device,
        keep_gb=keep_gb,
        upload_mb=upload_mb,
        voice_seconds=voice_seconds,
        page=page,
    )
    if not (Path(options.model) / "model_index.json").exists():
        raise InputError(f"{options.model} is not a checkpoint: a folder with a model_index.json.")
    if worker_only:
        return Worker(options).serve()
    shown = "localhost" if options.loopback else host
    typer.echo(f"Open http://{shown}:{port}/{f'?token={token}' if token else ''}", err=True)
    serve(options)
