"""Files in a folder or behind an fsspec URL (s3://, gs://, hf://, …): list, fetch, and write whole or not at all."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from skyreels_audio.media import InputError

if TYPE_CHECKING:
    import pyarrow

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ogv"}
)


class Folder:
    """A local folder or a URL; names in it are relative, with forward slashes."""

    def __init__(self, url: str | Path) -> None:
        from fsspec.core import url_to_fs

        try:
            self.fs, self.root = url_to_fs(str(url))
        except (ValueError, ImportError) as error:  # an unknown protocol, or its package is missing
            raise InputError(f"{url} cannot be opened: {error}.") from None
        self.local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))
        self.url = str(Path(self.root)) if self.local else str(url).rstrip("/")

    def path(self, name: str) -> str:
        return f"{self.url}/{name}"

    def files(self, folder: str = "") -> dict[str, int]:
        """Names of all files below ``folder`` → their sizes; none if there is no such folder."""
        root = f"{self.root}/{folder}".rstrip("/")
        try:
            found = self.fs.find(root, detail=True)
        except FileNotFoundError:
            return {}
        skip = len(self.root.rstrip("/")) + 1
        return {name[skip:]: int(entry.get("size") or 0) for name, entry in found.items()}

    def read(self, name: str) -> bytes:
        return self.fs.cat_file(f"{self.root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """The file appears whole or not at all: by rename in a folder, in one request elsewhere."""
        path = f"{self.root}/{name}"
        if not self.local:
            self.fs.pipe_file(path, content)
            return
        partial = Path(f"{path}.{uuid.uuid4().hex[:8]}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def read_table(self, name: str) -> "pyarrow.Table":
        import pyarrow as pa
        import pyarrow.parquet

        return pyarrow.parquet.read_table(pa.BufferReader(self.read(name)))

    def write_table(self, name: str, table: "pyarrow.Table") -> None:
        import pyarrow as pa
        import pyarrow.parquet

        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink, compression="zstd")
        self.write(name, sink.getvalue().to_pybytes())


def rows_name(source_id: str) -> str:
    """The file in a curation's folder that holds a source's rows, once they are finished."""
    return f"rows/{source_id}.parquet"


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """The file itself if it is a local one, else a temporary copy with the same suffix."""
    from fsspec.core import url_to_fs

    if "://" not in url:
        yield Path(url)
        return
    fs, path = url_to_fs(url)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).name
        fs.get_file(path, str(copy))
        yield copy
