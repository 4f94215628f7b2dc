"""A worker: a process that takes jobs from the queue, one at a time, and the watch that keeps workers alive.

A worker ends with the process that started it: it reads the options from its stdin and stops when that closes.
"""

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from skyreels_audio.app.jobs import Job, Jobs, born, new_id
from skyreels_audio.app.options import Options, machine
from skyreels_audio.app.render import PRESETS, Request
from skyreels_audio.bundled import bundled
from skyreels_audio.media import InputError, write_image

log = logging.getLogger(__name__)

EVERY = 0.3  # seconds between records of progress
BEAT = 5.0
KEPT_SPEEDS = 5
PREVIEW_SIDE = 320


class Stopped(Exception):
    """The job is not wanted any more."""


class Progress:
    """What a renderer reports, written down at most every ``EVERY`` seconds. Raises Stopped."""

    def __init__(self, jobs: Jobs, job: Job, attempt: int, folder: Path) -> None:
        self.jobs, self.job, self.attempt, self.folder = jobs, job, attempt, folder
        self.started = self.written = self.checked = 0.0
        self.phase, self.phase_started = "", 0.0

    def __call__(self, phase: str, done: int, total: int, frame: np.ndarray | None = None) -> None:
        now = time.time()
        self.started = self.started or now
        if phase != self.phase:
            self.phase, self.phase_started = phase, now
        elif now - self.written < EVERY and done != total:
            return
        if self.jobs.unwanted(self.job.id):
            raise Stopped
        ends = None if self.job.estimate is None else self.started + self.job.estimate
        if phase == "write" and done > 3:  # decoding goes along with it and nothing follows
            ends = now + (now - self.phase_started) / done * (total - done)
        state = {"phase": phase, "done": done, "total": total, "attempt": self.attempt, "ends": ends}
        self.jobs.write(f"state:{self.job.id}", state)
        if frame is not None:
            self.jobs.storage.put_data(f"preview:{self.job.id}", small_jpeg(frame, self.folder / "preview.jpg"))
        self.written = time.time()


class Worker:
    """Makes the videos of one device. ``watched``: its id, if a watch lives that would tell of its death."""

    def __init__(self, options: Options, watched: str | None = None) -> None:
        self.options = options
        self.jobs = Jobs(options, self.run)
        pid = os.getpid()
        self.me = {"id": watched or new_id(), "machine": machine(), "pid": pid, "born": born(pid)}
        self.me["watched"] = watched is not None
        self._renderer: Any = None

    @property
    def renderer(self) -> Any:
        """Loaded at first use. Raises InputError."""
        if self._renderer is None:
            module, _, name = self.options.renderer.partition(":")
            self._renderer = getattr(import_module(module), name)(self.options.model, self.options.device)
        return self._renderer

    def serve(self) -> None:
        """Take jobs until the process ends."""
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            self.measure()
        except InputError as error:  # every job will say so
            log.error("%s", error)
        consumer = self.jobs.huey.create_consumer(workers=1, periodic=False, max_delay=0.5, scheduler_interval=60)
        consumer.run()

    def run(self, id: str, attempt: int) -> None:
        """One attempt at a job, if nobody else makes it."""
        if not self.jobs.claim(id, attempt, self.me):
            return
        job = self.jobs.job(id)
        assert job is not None
        with tempfile.TemporaryDirectory(prefix="skyreels-") as name:
            folder = Path(name)
            progress = Progress(self.jobs, job, attempt, folder)
            try:
                progress("load", 0, 1)
                inputs = {}
                for stored in job.inputs:
                    inputs[Path(stored).stem] = folder / stored
                    self.jobs.files.get(id, stored, folder / stored)
                (folder / "made").mkdir()
                started = time.monotonic()
                video = self.renderer(Request(**job.request), inputs, folder / "made", progress)
                took = time.monotonic() - started
                size = 0
                for file in sorted((folder / "made").iterdir()):
                    size += self.jobs.files.put(file, id, f"{attempt}/{file.name}")
                if self.jobs.unwanted(id):
                    raise Stopped
                self.jobs.end(id, "finished", attempt, video=video, bytes=size, seconds=took)
                learn_speed(self.jobs, job, video, took)
            except Stopped:
                self.jobs.end(id, "cancelled", attempt)
            except InputError as error:
                self.jobs.end(id, "failed", attempt, without_paths(str(error), folder))
            except Exception:
                log.error("job %s failed:\n%s", id, traceback.format_exc())
                self.jobs.end(id, "failed", attempt, "Something went wrong at this video; the log has more.")

    def _beat(self) -> None:
        while True:
            with logged_errors():
                self.jobs.write(f"beat:{self.me['id']}", time.time())
            time.sleep(BEAT)

    def measure(self) -> None:
        """How long each preset takes on this machine, by the example, where it is not known yet; no job waits for it.

        Raises InputError where the checkpoint cannot be loaded.
        """

        def give_way(*progress: Any) -> None:
            if self.jobs.huey.pending_count():
                raise Stopped

        inputs = {"picture": bundled("examples/portrait.jpg"), "voice": bundled("examples/voice.wav")}
        for preset in PRESETS:
            if self.jobs.read(speed_key(preset, "picture")):
                continue
            with tempfile.TemporaryDirectory(prefix="skyreels-") as name, suppress(Stopped):
                give_way()
                started = time.monotonic()
                request = Request.model_validate({"preset": preset})
                video = self.renderer(request, inputs, Path(name), give_way)
                seconds = video["num_frames"] / video["fps"]
                self.jobs.write(speed_key(preset, "picture"), [(time.monotonic() - started) / seconds])


def speed_key(preset: str, kind: str) -> str:
    return f"speed:{preset}:{kind}"


def kind_of(inputs: list[str]) -> str:
    """ "picture", "video" or "words"."""
    return next((Path(name).stem for name in inputs if Path(name).stem != "voice"), "words")


def learn_speed(jobs: Jobs, job: Job, video: dict[str, Any], took: float) -> None:
    """Remember how many seconds a second of video took."""
    key = speed_key(job.request["preset"], kind_of(job.inputs))
    speeds = [*(jobs.read(key) or []), took * video["fps"] / max(1, video["num_frames"])]
    jobs.write(key, speeds[-KEPT_SPEEDS:])


def estimate(jobs: Jobs, preset: str, kind: str, seconds: float) -> float | None:
    """Seconds that so many seconds of video take here, the median of what it took; None where it was not tried yet."""
    speeds = jobs.read(speed_key(preset, kind))
    return None if not speeds else float(np.median(speeds)) * seconds


def small_jpeg(frame: np.ndarray, path: Path) -> bytes:
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    write_image(path, np.asarray(image))
    return path.read_bytes()


def without_paths(sentence: str, folder: Path) -> str:
    """A sentence about a job's files without where they lay."""
    return sentence.replace(f"{folder}/", "")


@contextmanager
def logged_errors() -> Iterator[None]:
    """For threads that go on when the queue cannot be reached."""
    try:
        yield
    except Exception:
        log.warning("the queue cannot be reached:\n%s", traceback.format_exc())


class Watch:
    """Starts workers and starts them again when they end, a little later each time they end at once.

    It writes down which of them died, so that a job is not blamed for the end of the whole server.
    """

    def __init__(self, options: Options, jobs: Jobs) -> None:
        self.options, self.jobs, self.closing = options, jobs, threading.Event()
        self.processes: set[subprocess.Popen[str]] = set()
        self.threads = [threading.Thread(target=self._keep, daemon=True) for _ in range(options.workers)]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """End the workers; what they were at is made again after the next start."""
        self.closing.set()
        for process in list(self.processes):
            process.kill()
        for thread in self.threads:
            thread.join(5)

    def _keep(self) -> None:
        wait = 1.0
        while not self.closing.is_set():
            started, id = time.monotonic(), new_id()
            command = [sys.executable, "-m", "skyreels_audio.app.worker", id]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
            assert process.stdin is not None
            process.stdin.write(self.options.to_json() + "\n")
            process.stdin.flush()
            self.processes.add(process)
            if self.closing.is_set():  # after all were killed
                process.kill()
            code = process.wait()
            self.processes.remove(process)
            if self.closing.is_set():
                return
            if code:  # at once, before anybody looks what the dead left; 0: somebody ended it in order
                with logged_errors():
                    self.jobs.write(f"death:{id}", code)
            log.warning("a worker ended with code %s; another is started", code)
            wait = min(30.0, 2 * wait) if time.monotonic() - started < 10 else 1.0
            self.closing.wait(wait)


def main() -> None:
    options = Options.from_json(sys.stdin.readline())

    def end_with_parent() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING)
    Worker(options, watched=sys.argv[1]).serve()


if __name__ == "__main__":
    main()
