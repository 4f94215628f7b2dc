"""Opening files, and the sentences a person reads when that fails."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer


class InputError(ValueError):
    """Something a person gave cannot be used; the message is one clear sentence that says what and why."""


def existing_file(path: str | Path) -> Path:
    """``path``, if it is a file with something in it that may be read; else raises ``InputError``."""
    path = Path(path)
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if not path.is_file():
        raise InputError(f"{path} is {'a folder' if path.is_dir() else 'a device or pipe'}, not a file.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read: permission denied.")
    if size == 0:
        raise InputError(f"{path} is empty (zero bytes).")
    return path


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """Open sound or video to read it; what FFmpeg cannot read in the block, too, raises ``InputError``."""
    path = existing_file(path)
    try:
        # "file:" so that a colon in the name means no protocol.
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            yield container
    except InputError:
        raise
    except (av.error.FFmpegError, ValueError) as error:  # ValueError: the sound's format changes midway
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} holds no sound or video that can be read, or is truncated ({reason}).") from error


def decode(packet: av.Packet) -> list[Any]:
    """The frames in ``packet``; none if it is damaged: one goes on with the next, as players do."""
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system or FFmpeg says against writing ``path`` in the block raises ``InputError``."""
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write under, which becomes ``path`` when the block ends well and is removed when it does not.

    It is always the same, so that what a killed process left is gone when the same command runs again.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
