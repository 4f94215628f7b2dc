"""What Ctrl-C and SIGTERM do to a run: it ends within two seconds, whatever it computes, and says how to go on."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from skyreels_audio.acceleration.ranks import rank

PATIENCE = 1.0  # seconds in which a run may end by itself, its files put away, before it is ended
SHOW_CURSOR = b"\x1b[?25h"  # progress bars hide it


@contextmanager
def ending_promptly(state: Path) -> Iterator[None]:
    """In the block the two signals, which raise KeyboardInterrupt, end the process once files are put away.

    Python raises it when the operation at hand is over. That may be an import, or a step of a large model on a busy
    machine: a second thread does not wait for it longer than ``PATIENCE``. Nothing is lost, since states, videos and
    reports appear under their names when they are whole.

    Args:
        state: the file that the same command goes on from with --resume, if it is there by then.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(reader, ended, state), daemon=True).start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # the one thing that the signal itself does
    try:
        yield
    except KeyboardInterrupt:
        ended.set()
        end(state)
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writer)


def _watch(reader: int, ended: threading.Event, state: Path) -> None:
    """Wait for one of the two signals, then for the run to end."""
    from skyreels_audio.media.files import remove_partials

    with os.fdopen(reader, "rb", buffering=0) as signals:
        while number := signals.read(1):  # empty when the block has ended
            if number[0] in (signal.SIGINT, signal.SIGTERM) and not ended.wait(PATIENCE):
                break
        else:
            return
    remove_partials()
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), SHOW_CURSOR)
    end(state)


def end(state: Path) -> NoReturn:
    """Say how to go on, and be gone: to take an interpreter with torch in it apart costs more than a second."""
    if rank() == 0:  # of several processes
        more = "; the same command with --resume goes on." if state.exists() else "."
        print(f"Interrupted{more}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(128 + signal.SIGINT)
