"""What visitors send: known by its first bytes, checked in a process of its own, kept under names of the server's."""

import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread

from skyreels_audio.app import sandbox
from skyreels_audio.app.jobs import new_id
from skyreels_audio.app.options import Options
from skyreels_audio.app.sandbox import Refused

Kind = Literal["picture", "voice", "video"]
FORGOTTEN = 24 * 3600  # seconds after which an upload that nobody used is deleted

# First bytes of files (offset, bytes) → what they may be, and the suffix that browsers know them by. Playlists, SVG,
# archives and whatever else can point to other files have no place here.
SIGNATURES: list[tuple[int, bytes, tuple[Kind, ...], str]] = [
    (0, b"\x89PNG\r\n\x1a\n", ("picture",), ".png"),
    (0, b"\xff\xd8\xff", ("picture",), ".jpg"),
    (0, b"GIF8", ("picture",), ".gif"),
    (0, b"BM", ("picture",), ".bmp"),
    (0, b"II*\x00", ("picture",), ".tiff"),
    (0, b"MM\x00*", ("picture",), ".tiff"),
    (8, b"WEBP", ("picture",), ".webp"),
    (4, b"ftypavif", ("picture",), ".avif"),
    (4, b"ftyphei", ("picture",), ".heic"),
    (4, b"ftypmif1", ("picture",), ".heic"),
    (8, b"WAVE", ("voice",), ".wav"),
    (0, b"fLaC", ("voice",), ".flac"),
    (0, b"ID3", ("voice",), ".mp3"),
    (0, b"\xff\xfb", ("voice",), ".mp3"),
    (0, b"\xff\xf3", ("voice",), ".mp3"),
    (0, b"\xff\xf2", ("voice",), ".mp3"),
    (0, b"\xff\xf1", ("voice",), ".aac"),
    (0, b"\xff\xf9", ("voice",), ".aac"),
    (0, b"FORM", ("voice",), ".aiff"),
    (0, b"OggS", ("voice", "video"), ".ogg"),
    (0, b"\x1a\x45\xdf\xa3", ("voice", "video"), ".webm"),
    (4, b"ftyp", ("voice", "video"), ".mp4"),
    (8, b"AVI ", ("voice", "video"), ".avi"),
]


@dataclass(frozen=True)
class Upload:
    """A checked file of a session: ``path`` is what the pipeline may read, ``about`` its size or length."""

    kind: Kind
    path: Path
    about: dict[str, Any]


def signature(head: bytes) -> tuple[tuple[Kind, ...], str]:
    """What a file may be by its first bytes, and its suffix. Raises Refused."""
    for offset, magic, kinds, suffix in SIGNATURES:
        if head[offset : offset + len(magic)] == magic and (offset < 8 or head[:4] == b"RIFF"):
            return kinds, suffix
    known = "PNG, JPEG, WebP, AVIF, GIF, BMP, TIFF pictures; WAV, MP3, FLAC, AAC, Ogg sound; MP4, WebM, MKV, AVI video"
    raise Refused(f"This file is of no kind that is taken ({known}).")


class Uploads:
    """Files by session: ``FOLDER/SESSION/RANDOM/``. A session is named by its hash, see ``access``."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.root = options.folder.resolve() / "uploads"

    async def receive(self, owner: str, chunks: AsyncIterator[bytes], kinds: tuple[Kind, ...]) -> Upload:
        """Take a file from the net and check it. Raises Refused; then nothing of it stays."""
        folder = self.root / owner / new_id()
        folder.mkdir(parents=True)
        try:
            raw, size = folder / "raw", 0
            async with await anyio.open_file(raw, "wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self.options.upload_mb << 20:
                        raise Refused(f"This file is larger than {self.options.upload_mb} MB, the most that is taken.")
                    await file.write(chunk)
            return await anyio.to_thread.run_sync(self.check, raw, kinds)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def check(self, raw: Path, kinds: tuple[Kind, ...]) -> Upload:
        """Make of a raw file what the pipeline may read, beside it. Raises Refused."""
        with raw.open("rb") as file:
            may_be, suffix = signature(file.read(16))
        kind: Kind | None = next((kind for kind in kinds if kind in may_be), None)
        if kind is None:
            raise Refused(f"This is a {' or '.join(may_be)}; here a {' or '.join(kinds)} is wanted.")
        most = self.options.voice_seconds
        if kind == "picture":
            path = raw.with_name("picture.png")
            about = sandbox.run("picture", raw, target=str(path))
            raw.unlink()
        elif kind == "voice":
            path = raw.with_name("voice.wav")
            about = sandbox.run("voice", raw, target=str(path), most_seconds=most)
            raw.unlink()
        else:
            path = raw.with_name(f"video{suffix}")
            about = sandbox.run("video", raw, most_seconds=most)
            raw.rename(path)
        return Upload(kind, path, about)

    def owned(self, owner: str, path: str) -> Path:
        """``path``, if it is a checked file of that session. Raises Refused."""
        found = Path(path)
        own = found.parent.parent == self.root / owner and found.stem in ("picture", "voice", "video", "frame")
        if not own or ".." in found.parts or not found.is_file():
            raise Refused("This file is not here any more; send it again.")
        return found

    def drop(self, path: Path) -> None:
        """Forget a checked file."""
        shutil.rmtree(path.parent, ignore_errors=True)

    def forget_old(self, most_bytes: float) -> None:
        """Delete uploads that are older than ``FORGOTTEN``, and the oldest until the rest fits."""
        folders = sorted(self.root.glob("*/*"), key=lambda folder: -folder.stat().st_mtime)
        total = 0
        for folder in folders:  # the newest first
            total += sum(file.stat().st_size for file in folder.iterdir())
            if total > most_bytes or time.time() - folder.stat().st_mtime > FORGOTTEN:
                shutil.rmtree(folder, ignore_errors=True)
