"""How far long work is, on the terminal."""

import logging
import time
from types import TracebackType
from typing import Any, Self

import typer


class Progress:
    """A bar for each phase, with an estimate of the time left: ``progress(phase, done, total)``.

    Args:
        quiet: show nothing, as all but the first of several processes do.

    Attributes:
        seconds: of each phase, from its first call to its last. Decoding and writing take turns, so both span both.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True, quiet=self.quiet)
        columns = TextColumn("{task.description:<7}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bars = Bars(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self._bars.start()
        self._warnings = _Warnings(logging.CRITICAL if self.quiet else logging.WARNING)
        logging.getLogger("skyreels_audio").addHandler(self._warnings)
        return self

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.perf_counter()
        self.seconds[phase] = now - self._started.setdefault(phase, now)
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase)
        self._bars.update(self._tasks[phase], completed=done, total=total)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()
        logging.getLogger("skyreels_audio").removeHandler(self._warnings)


class _Warnings(logging.Handler):
    """What the package warns of, as a sentence on the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(f"Warning: {record.getMessage()}", err=True)
