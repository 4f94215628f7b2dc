"""The files of jobs, in a folder or at any other fsspec URL."""

from collections.abc import Iterator
from pathlib import Path

import fsspec

BLOCK = 1 << 18  # bytes per read


class Files:
    """Files by job and name below one fsspec URL. Ids and names come from this package, never from a visitor."""

    def __init__(self, url: str) -> None:
        self.fs, root = fsspec.core.url_to_fs(url)
        self.root = root.rstrip("/")

    def path(self, job: str, name: str) -> str:
        return f"{self.root}/{job}/{name}"

    def put(self, source: Path, job: str, name: str) -> int:
        """Store a local file; return its size in bytes."""
        target = self.path(job, name)
        self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.fs.put_file(str(source), target)
        return source.stat().st_size

    def get(self, job: str, name: str, target: Path) -> None:
        self.fs.get_file(self.path(job, name), str(target))

    def size(self, job: str, name: str) -> int:
        """In bytes. Raises FileNotFoundError."""
        return int(self.fs.size(self.path(job, name)))

    def read(self, job: str, name: str, first: int, last: int) -> Iterator[bytes]:
        """The bytes ``first`` to ``last``, both included."""
        with self.fs.open(self.path(job, name), "rb") as file:
            file.seek(first)
            left = last + 1 - first
            while left > 0 and (block := file.read(min(BLOCK, left))):
                left -= len(block)
                yield block

    def delete(self, job: str) -> None:
        if self.fs.exists(f"{self.root}/{job}"):
            self.fs.rm(f"{self.root}/{job}", recursive=True)
