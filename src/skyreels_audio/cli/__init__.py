"""The command ``skyreels-audio``: each verb checks what a person gives, then calls one function of the package.

Heavy imports happen inside the verbs, so that ``--help`` and mistakes are answered at once.
"""

import signal
import sys

import typer

from skyreels_audio.acceleration.ranks import local_rank
from skyreels_audio.cli.app import app as page
from skyreels_audio.cli.benchmark import benchmark
from skyreels_audio.cli.clips import check_data, manifest, precompute
from skyreels_audio.cli.convert import convert
from skyreels_audio.cli.curate import curate, review
from skyreels_audio.cli.data import synthesize
from skyreels_audio.cli.evaluate import evaluate
from skyreels_audio.cli.generate import generate
from skyreels_audio.cli.training import render, train
from skyreels_audio.threads import bound_threads

app = typer.Typer(
    help="Audio-conditioned talking portraits in video diffusion transformers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
VERBS = (generate, train, render, synthesize, manifest, precompute, check_data, curate, review, evaluate, benchmark)
for verb in (*VERBS, convert, page):
    app.command()(verb)


def main() -> None:
    """Run the command. What the person at the keyboard can mend ends in one sentence and exit code 2."""
    bound_threads()
    from skyreels_audio.media import InputError

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends the process may go on later, as by Ctrl-C
    try:
        app()
    except InputError as error:
        if local_rank() == 0:  # all processes of a machine find the same
            print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except ConnectionError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
