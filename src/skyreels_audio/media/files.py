"""Opening files, and the sentences a person reads when that fails."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer
from av.stream import Stream

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted: that is lock enough
    fcntl = None

LONGEST_GAP = 3600.0  # seconds between two frames or sounds; above it the file's clock is damaged
JOINED = 0.5  # seconds; where a clock goes back by more, files were joined end to end, each with a clock of its own
REFERRING = {"concat", "dash", "hls", "imf", "image2", "rtsp", "sdp"}  # FFmpeg's names of lists of other files
_being_written: set[Path] = set()


class InputError(ValueError):
    """Something a person gave cannot be used; the message is one clear sentence that says what and why."""


def existing_file(path: str | Path) -> Path:
    """``path``, if it is a file with something in it that may be read; else raises ``InputError``."""
    path = Path(path)
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', error)}.") from error
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
        alone = {"protocol_whitelist": "file"}
        with av.open(f"file:{path}", metadata_errors="replace", options=alone) as container:
            if REFERRING & set(container.format.name.split(",")):
                raise InputError(f"{path} is a list of other files, which are not read; give one of those.")
            yield container
    except InputError:
        raise
    except av.error.PatchWelcomeError as error:
        raise InputError(f"{path} is stored in a way that cannot be read, or changes that way midway.") from error
    except (av.error.FFmpegError, ValueError, OverflowError) as error:  # a format that changes midway, absurd sizes
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{path} holds no sound or video that can be read, or is truncated ({reason}).") from error


def decode(packet: av.Packet) -> list[Any]:
    """The frames in ``packet``; none if it is damaged: one goes on with the next, as players do."""
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []


def tagged_seconds(stream: Stream) -> float:
    """How long Matroska's own note, such as 01:02:03.5, says that a track is; 0 without it."""
    try:
        hours, minutes, seconds = map(float, stream.metadata.get("DURATION", "").split(":"))
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


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

    The name is this run's own, so that two runs with one output give one whole file. It is short, since ``path`` may
    have the longest name there is. What killed runs left for ``path`` is removed: their locks went with them.
    """
    prefix = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"
    for abandoned in path.parent.glob(f"{prefix}*.partial"):
        _remove_unlocked(abandoned)
    partial, descriptor = _claim(path.parent, prefix)
    _being_written.add(partial)
    try:
        yield partial
        if fcntl is None:
            os.close(descriptor)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        _being_written.discard(partial)
        with suppress(OSError):  # without fcntl it may be closed
            os.close(descriptor)


def remove_partials() -> None:
    """What this process has begun to write and will not finish: for those who end it on the spot."""
    for partial in list(_being_written):
        with suppress(OSError):
            partial.unlink()


def _claim(folder: Path, prefix: str) -> tuple[Path, int]:
    """Make and lock a file of one's own."""
    while True:
        partial = folder / f"{prefix}{secrets.token_hex(4)}.partial"
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        with suppress(OSError):  # a file system without locks: nobody removes what cannot be locked
            if _lock(descriptor) and partial.exists():
                return partial, descriptor
            os.close(descriptor)  # another run, cleaning, came between
            continue
        return partial, descriptor


def _remove_unlocked(partial: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(partial, os.O_RDWR)
        try:
            if _lock(descriptor):
                partial.unlink()
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether no other process has locked the file, and now this one has. Raises OSError where locks are unknown."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
