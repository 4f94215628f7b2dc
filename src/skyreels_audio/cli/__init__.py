"""The command ``skyreels-audio``: each verb checks what a person gives, then calls one function of the package.

Heavy imports happen inside the verbs, so that ``--help`` and mistakes are answered at once.
"""

import errno
import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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
DISC = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # full, no quota left, too small, read-only
for verb in (*VERBS, convert, page):
    app.command()(verb)


def main() -> None:
    """Run the command."""
    bound_threads()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # neither closed nor somebody's own
            stream.reconfigure(errors="backslashreplace")  # names of files may be anything
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends the process may go on later, as by Ctrl-C
    with in_sentences():
        app()


@contextmanager
def in_sentences() -> Iterator[None]:
    """What the person at the keyboard can mend ends the process with one sentence and exit code 2."""
    from skyreels_audio.media import InputError

    try:
        yield
    except InputError as error:
        if local_rank() == 0:  # all processes of a machine find the same
            print(f"Error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except ConnectionError as error:
        print(f"Error: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in DISC:
            raise
        what = printable(str(error.filename or "A file"))
        print(f"Error: {what} cannot be written: {error.strerror}; run the same command again.", file=sys.stderr)
        sys.exit(2)


def printable(text: str) -> str:
    """One line that does to a terminal nothing but to be read: names of files may hold anything."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
