"""skyreels-audio evaluate"""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from skyreels_audio.cli.progress import Progress

PROTOCOL = "hdtf-100, lipsync-hdtf, internal, synthetic, or a YAML file."
REFERENCE = "Folder of true clips (NAME.mp4), or with a cases.json, as --prepare and benchmark --suite write it."


STUDY = "Ask raters about videos of two systems or more: their folders, each with the option; answers go to --out."


def evaluate(
    generated: Annotated[Path | None, typer.Option(help="Folder of videos to measure, NAME.mp4.")] = None,
    reference: Annotated[Path | None, typer.Option(help=REFERENCE)] = None,
    protocol: Annotated[str, typer.Option(help=PROTOCOL)] = "hdtf-100",
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, metrics.md and index.html.")] = Path("evaluation"),
    inception: Annotated[Path | None, typer.Option(help="Weights of FID's Inception-v3.")] = None,
    i3d: Annotated[Path | None, typer.Option(help="Weights of FVD's I3D.")] = None,
    syncnet: Annotated[Path | None, typer.Option(help="syncnet_v2.model. [default: our own sync expert]")] = None,
    qalign: Annotated[Path | None, typer.Option(help="Folder of q-future/one-align.")] = None,
    qalign_python: Annotated[Path | None, typer.Option(help="Python with the transformers that it needs.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    prepare: Annotated[bool, typer.Option("--prepare", help="Make a protocol's set of cases from --videos.")] = False,
    videos: Annotated[Path | None, typer.Option(help="Of --prepare: a folder of downloaded videos.")] = None,
    study: Annotated[list[Path] | None, typer.Option(help=STUDY)] = None,
    tally: Annotated[bool, typer.Option("--tally", help="Count the answers of the study in --out.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --study, on this machine alone.")] = 8765,
) -> None:
    """Measure generated videos by a protocol; the same command goes on after any interruption."""
    if study or tally:
        return typer.echo(_tally(out) if tally else _ask(study or [], out, port))
    from skyreels_audio.evaluation.protocol import load_protocol
    from skyreels_audio.media import InputError

    chosen = load_protocol(protocol)
    if prepare != (videos is not None):
        raise InputError("--prepare and --videos go together: what to do, and with which folder.")
    if videos is not None:
        from skyreels_audio.evaluation.prepare import prepare as cut

        with Progress() as progress:
            cases, passed = cut(videos, out, chosen, progress)
        for name, reason in passed.items():
            typer.echo(f"Warning: {name} is passed over: {reason}", err=True)
        return typer.echo(f"{out}: {len(cases)} cases of {chosen.name}")
    if generated is None or reference is None:
        raise InputError("Give --generated and --reference; `skyreels-audio evaluate --help` says more.")
    if (qalign is None) != (qalign_python is None):
        raise InputError("--qalign and --qalign-python go together: the model and the Python that runs it.")

    from skyreels_audio.evaluation.cases import read_cases
    from skyreels_audio.evaluation.evaluate import evaluate as measure
    from skyreels_audio.evaluation.measure import Networks
    from skyreels_audio.evaluation.page import write_report
    from skyreels_audio.evaluation.qalign import QAlign

    with ExitStack() as stack:
        progress = stack.enter_context(Progress())
        rater = stack.enter_context(QAlign(qalign_python, qalign)) if qalign and qalign_python else None
        networks = Networks(inception, i3d, syncnet)
        found = measure(generated, reference, chosen, out, networks, rater, workers, progress)
    write_report(found, read_cases(reference), generated, out)
    for clip in found.clips:
        if "error" in clip:
            typer.echo(f"Warning: {clip['name']} is left out: {clip['error']}", err=True)
    typer.echo(f"{out / 'index.html'}: {len(found.clips)} clips; the figures are in metrics.json and metrics.md")


def _ask(systems: list[Path], out: Path, port: int) -> str:
    """Serve the study's page until it is interrupted; then what the answers say."""
    from skyreels_audio.evaluation.study import Study
    from skyreels_audio.evaluation.study_server import StudyServer
    from skyreels_audio.media import InputError

    study = Study.open(out, systems)
    try:
        server = StudyServer(study, port)
    except OSError as error:
        raise InputError(f"Port {port} cannot be used ({error.strerror}); give another --port.") from error
    with server:
        typer.echo(
            f"http://127.0.0.1:{server.server_address[1]}  {len(study.clips)} clips of {len(study.systems)} systems"
        )
        typer.echo(f"Answers go to {study.answers_path}; Ctrl-C ends the study and counts them.")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return _tally(out) if study.answers() else f"{out}: no answers yet; the same command goes on"


def _tally(folder: Path) -> str:
    from skyreels_audio.evaluation.study import Study, tally
    from skyreels_audio.media.files import replacing, writing

    told = tally(Study.open(folder)).markdown()
    path = folder / "tally.md"
    with writing(path), replacing(path) as partial:
        partial.write_text(told)
    return told
