"""Scoring one source, and the process it happens in: a video that crashes its worker takes nothing else with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from skyreels_audio.curation.footage import Source, footage
from skyreels_audio.curation.recipe import Recipe
from skyreels_audio.curation.schema import Clip
from skyreels_audio.media import InputError

ATTEMPTS = 2  # a source that ends its worker so often is quarantined
QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Job:
    """A source to score and the rows that it has so far."""

    id: str
    url: str
    rows: tuple[Clip, ...] = ()


def missing(clip: Clip, recipe: Recipe) -> list[str]:
    """The stages that a row still needs; none after an error, or once a limit has rejected it."""
    if clip.error is not None:
        return []
    needed = []
    for stage in recipe.stages.active():
        if clip.stages.get(stage.name) != stage.version:
            needed.append(stage.name)
        elif recipe.failures(clip, stage.name):
            break
    return needed


def score(job: Job, recipe: Recipe, only: frozenset[str] | None = None) -> list[Clip]:
    """The source's rows after all stages, or ``only`` some, that they still need. Stages are set up already.

    What a stage raises becomes the row's error; the other rows go on.
    """
    if job.rows and not {"probe", "split"} & {name for row in job.rows for name in missing(row, recipe)}:
        rows = list(job.rows)
    else:
        rows = None
    try:
        with Source(job.url):
            rows = _clips(job, recipe) if rows is None else rows
            rows = [_score(clip, recipe, only) for clip in rows]
    except (OSError, InputError) as error:  # the source itself cannot be fetched
        rows = [Clip(job.id, job.url, error=f"fetch: {_sentence(error)}")]
    here = f"{socket.gethostname()}:{os.getpid()}"
    return [replace(row, worker=here, finished=time.time()) for row in rows]


def _clips(job: Job, recipe: Recipe) -> list[Clip]:
    """Probe and split a source: the rows of its clips, or one that says why there are none."""
    clip, stages = Clip(job.id, job.url), recipe.stages
    begun = time.process_time()
    try:
        clip = _done(stages.probe(clip), "probe", stages.probe.version, begun)
    except Exception as error:
        return [replace(clip, error=f"probe: {_sentence(error)}")]
    if failed := recipe.failures(clip, "probe"):
        return [replace(clip, rejected=failed[0])]
    begun = time.process_time()
    try:
        clips = stages.split(clip)
    except Exception as error:
        return [replace(clip, error=f"split: {_sentence(error)}")]
    shared = (time.process_time() - begun) / len(clips)
    return [_done(each, "split", stages.split.version, time.process_time() - shared) for each in clips]


def _score(clip: Clip, recipe: Recipe, only: frozenset[str] | None) -> Clip:
    needed = set(missing(replace(clip, rejected=None), recipe))
    clip = replace(clip, rejected=None)
    if clip.error is not None:
        return clip
    for stage in recipe.stages.active():
        name = stage.name
        if name in needed and (only is None or name in only):
            try:
                clip = _decoded(clip)
                begun = time.process_time()
                clip = _done(stage(clip), name, stage.version, begun)
            except Exception as error:
                return replace(clip, error=f"{name}: {_sentence(error)}")
        if name in clip.stages and (failed := recipe.failures(clip, name)):
            return replace(clip, rejected=failed[0])
    return clip


def _decoded(clip: Clip) -> Clip:
    """Decode now, so that its cost is not counted as that of the first stage that looks."""
    begun = time.process_time()
    footage(clip).frames_FHWC  # noqa: B018 (kept for the stages)
    spent = clip.timings.get("decode", 0.0) + time.process_time() - begun
    return replace(clip, timings={**clip.timings, "decode": round(spent, 4)})


def _done(clip: Clip, name: str, version: int, begun: float) -> Clip:
    spent = round(time.process_time() - begun, 4)
    return replace(clip, stages={**clip.stages, name: version}, timings={**clip.timings, name: spent})


def _sentence(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    said = text[0] if text else "no reason given"
    return said if isinstance(error, InputError) else f"{type(error).__name__}: {said}"


class Worker:
    """A process with the stages set up. One job at a time; when it dies, the next job starts another."""

    def __init__(self, recipe: Recipe, only: frozenset[str] | None = None) -> None:
        self._recipe, self._only = recipe, only
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._closed = False

    def score(self, job: Job) -> list[Clip]:
        """The source's rows; one with an error if it has ended ``ATTEMPTS`` processes. Raises what setup does."""
        for _ in range(ATTEMPTS):
            if self._closed:
                raise InterruptedError("the run was ended")
            pipe = self._start()
            try:
                pipe.send(job)
                if pipe.poll(self._recipe.timeout):
                    result = pipe.recv()
                    if isinstance(result, BaseException):
                        raise result
                    return result
                reason = f"no result within {self._recipe.timeout:g} s"
            except (EOFError, ConnectionError):
                assert self._process is not None
                self._process.join(5)
                reason = f"its worker ended with code {self._process.exitcode}"
            self._end()
        return [Clip(job.id, job.url, error=f"{QUARANTINED}: {ATTEMPTS} attempts, {reason}", finished=time.time())]

    def _start(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._recipe, self._only), daemon=True)
            self._process.start()
            theirs.close()
        return self._pipe

    def close(self) -> None:
        """End the process, and with it what it is doing."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process, self._pipe = None, None


def _serve(pipe: Connection, recipe: Recipe, only: frozenset[str] | None) -> None:
    """The worker's process: set up once, then score until the other end is closed."""
    one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run that started it decides
    stages = [stage for stage in recipe.stages.active() if only is None or stage.name in only]
    try:
        for stage in stages:
            stage.setup()
    except Exception as error:
        pipe.recv()
        pipe.send(error)
        return
    while True:
        try:
            job = pipe.recv()
        except (EOFError, ConnectionError):
            return
        pipe.send(score(job, recipe, only))


def one_thread() -> None:
    """Workers share the machine out among them: none computes on more than one thread. Before torch is imported."""
    from importlib.util import find_spec

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    if find_spec("cv2") is not None:
        import cv2

        cv2.setNumThreads(1)
