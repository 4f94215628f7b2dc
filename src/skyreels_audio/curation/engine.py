"""The pool through all stages: what is to do, the local loop, and one finished Parquet file per source.

out/rows/<source>.parquet  the rows of one source, written by rename: what is there is finished
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from threading import local
from typing import Literal

from skyreels_audio.curation.recipe import Recipe
from skyreels_audio.curation.schema import Clip, from_table, to_table
from skyreels_audio.curation.storage import VIDEO_SUFFIXES, Folder, rows_name
from skyreels_audio.curation.worker import QUARANTINED, Job, Worker, missing
from skyreels_audio.media import InputError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a run did: sources of the pool, finished before it, scored by it, quarantined so far, and still missing."""

    sources: int
    before: int
    scored: int
    quarantined: int
    missing: int


def curate(
    recipe: Recipe,
    source: str | Path,
    out: str | Path,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    retry: bool = False,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Score every video of ``source`` (a folder, a URL, or a list of files) into ``out``; the same call resumes.

    retry: sources with an error are scored again.
    Raises ``InputError`` if the input or a stage's model is missing, before anything starts.
    """
    for stage in recipe.stages.active():
        stage.check()
    sources, folder = find_sources(source), Folder(out)
    jobs = list(todo(sources, folder, recipe, retry))
    before = len(sources) - len(jobs)
    progress(before, len(sources))
    if engine == "ray":
        from skyreels_audio.curation.ray_engine import run_ray

        finished = run_ray(jobs, recipe, folder, workers or recipe.workers)
    else:
        finished = run_local(jobs, recipe, folder, workers or recipe.workers)
    scored = quarantined = 0
    for rows in finished:
        scored += 1
        quarantined += bool(rows) and (rows[0].error or "").startswith(QUARANTINED)
        progress(before + scored, len(sources))
    return Outcome(len(sources), before, scored, quarantined, len(sources) - before - scored)


def find_sources(source: str | Path) -> dict[str, str]:
    """Id → path or URL of every video in a folder or URL, or in a list: a text file with a path or URL a line, or a
    Parquet file with a column ``path``. The id is a hash of name and size, so that a file that changed is new.
    """
    text = str(source)
    if "://" not in text and Path(text).is_file() and Path(text).suffix in (".txt", ".parquet"):
        return {_id(url, _size(url)): url for url in _listed(Path(text))}
    if "://" not in text and not Path(text).exists():
        raise InputError(f"{text} does not exist.")
    folder = Folder(text)
    found = {
        name: size for name, size in folder.files().items() if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES
    }
    if not found:
        raise InputError(f"{text} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))}).")
    return {_id(name, size): folder.path(name) for name, size in sorted(found.items())}


def _listed(path: Path) -> list[str]:
    if path.suffix == ".txt":
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    if "path" not in table.column_names:
        raise InputError(f"{path} has no column path.")
    return [str(Path(path.parent, name)) if "://" not in name else name for name in table.column("path").to_pylist()]


def _size(url: str) -> int:
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url)
    try:
        return int(fs.size(path) or 0)
    except OSError:
        return -1  # the row will say that it does not exist


def _id(name: str, size: int) -> str:
    return hashlib.sha256(f"{name}\n{size}".encode()).hexdigest()[:16]


def todo(sources: dict[str, str], out: Folder, recipe: Recipe, retry: bool = False) -> Iterator[Job]:
    """The sources without a finished file, or whose rows lack a stage that the recipe asks for."""
    done = {PurePosixPath(name).stem for name in out.files("rows") if name.endswith(".parquet")}
    for source_id, url in sources.items():
        rows: list[Clip] = []
        if source_id in done:
            rows = from_table(out.read_table(rows_name(source_id)))
            failed = any(row.error for row in rows)
            if not (retry and failed) and not any(missing(row, recipe) for row in rows):
                continue
            rows = [] if failed else rows
        yield Job(source_id, url, tuple(replace(row, source=url) for row in rows))


def run_local(jobs: list[Job], recipe: Recipe, out: Folder, workers: int) -> Iterator[list[Clip]]:
    """Score with so many worker processes on this machine; yields each source's rows once they are written."""
    here, started = local(), []

    def work(job: Job) -> list[Clip]:
        if not hasattr(here, "worker"):
            here.worker = Worker(recipe)
            started.append(here.worker)
        rows = here.worker.score(job)
        out.write_table(rows_name(job.id), to_table(rows))
        return rows

    pool = ThreadPoolExecutor(workers)
    waiting: set[Future[list[Clip]]] = set()
    queue = iter(jobs)
    try:
        while True:
            while len(waiting) < 2 * workers and (job := next(queue, None)) is not None:
                waiting.add(pool.submit(work, job))
            if not waiting:
                return
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in started:
            worker.close()
        pool.shutdown()
