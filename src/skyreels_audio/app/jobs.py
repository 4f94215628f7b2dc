"""Jobs: submitted, claimed by one worker, ended once, whoever is killed meanwhile.

The queue and all records lie in huey's storage, SQLite or Redis alike. Every record has one writer,
so nothing is locked:

    job:ID        what was asked for                       written once, at submission
    claim:ID:N    the worker of the N-th attempt           written once, by whichever worker is first
    state:ID      how far the attempt is                   written by that worker
    preview:ID    a JPEG of the latest frame               written by that worker
    cancel:ID     it shall stop                            written by a server
    end:ID        finished, failed or cancelled            written once, by whoever is first
    beat:WORKER   when a worker last lived                 written by that worker
    death:WORKER  it died while its watch lived            written by that watch
"""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import count, takewhile
from typing import Any, Literal

import psutil
from huey import PriorityRedisHuey, SqliteHuey
from huey.api import Huey
from huey.constants import EmptyData

from skyreels_audio.app.files import Files
from skyreels_audio.app.options import Options, machine

DEATHS = 2  # of workers alone, after which a job is to blame for them
ATTEMPTS = 25  # at a job, whoever is to blame: one that takes the whole server down must not do so for ever
GRACE = 5.0  # seconds that a job may be neither queued nor claimed
SILENT = 30.0  # seconds without a beat after which a worker of another machine counts as dead
SNAPSHOT = 0.5  # seconds for which a look at the queue is good

State = Literal["waiting", "running", "finished", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """What was asked for: ``request`` are the fields of ``render.Request``, ``inputs`` the names of its files."""

    id: str
    owner: str
    request: dict[str, Any]
    inputs: list[str]
    created: float
    bytes: int
    estimate: float | None = None


@dataclass(frozen=True)
class Status:
    """Where a job stands. ``position``: 1 is next. Seconds are estimates of what is left."""

    id: str
    state: State
    created: float
    position: int | None = None
    phase: str | None = None
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    message: str | None = None
    attempt: int = 1
    request: dict[str, Any] = field(default_factory=dict)
    video: dict[str, Any] | None = None


class Jobs:
    """The queue and its records. ``run(job id, attempt)`` is what a worker does with a job; a server has none."""

    def __init__(self, options: Options, run: Callable[[str, int], None] | None = None) -> None:
        self.files = Files(options.results_url)
        self.huey = connect(options)
        self.storage: Any = self.huey.storage
        self._queue: tuple[float, list[tuple[str, int]]] = (-SNAPSHOT, [])
        self._ended: dict[str, dict[str, Any]] = {}

        def run_job(job: str, attempt: int) -> None:
            assert run is not None
            run(job, attempt)

        self._task = self.huey.task(name="run_job")(run_job)

    # Records

    def read(self, key: str) -> Any:
        """A record, None where there is none."""
        raw = self.storage.peek_data(key)
        return None if raw is EmptyData else json.loads(bytes(raw))

    def write(self, key: str, value: Any) -> None:
        self.storage.put_data(key, json.dumps(value).encode())

    def write_once(self, key: str, value: Any) -> bool:
        """False where the record exists already."""
        return bool(self.storage.put_if_empty(key, json.dumps(value).encode()))

    def records(self, prefix: str) -> dict[str, Any]:
        """All records of a kind, by what follows the prefix."""
        items = self.storage.result_items().items()
        return {key[len(prefix) :]: json.loads(bytes(raw)) for key, raw in items if key.startswith(prefix)}

    # A visitor's side

    def submit(self, job: Job) -> None:
        """Its files must be stored already."""
        self.write(f"job:{job.id}", asdict(job))
        self._enqueue(job.id, 1)

    def job(self, id: str) -> Job | None:
        found = self.read(f"job:{id}")
        return None if found is None else Job(**found)

    def owned(self, owner: str) -> list[Job]:
        """The jobs of a session, newest first."""
        jobs = [Job(**value) for value in self.records("job:").values() if value["owner"] == owner]
        return sorted(jobs, key=lambda job: -job.created)

    def status(self, job: Job) -> Status:
        end = self._end_of(job.id)
        if end is not None:
            shown: dict[str, Any] = {name: end.get(name) for name in ("message", "video")}
            return Status(job.id, end["state"], job.created, request=job.request, attempt=end["attempt"], **shown)
        state = self.read(f"state:{job.id}")
        waiting = [id for id, _ in self.queued()]
        if state is None or job.id in waiting:
            position = waiting.index(job.id) + 1 if job.id in waiting else 1
            return Status(job.id, "waiting", job.created, position, seconds_left=job.estimate, request=job.request)
        left = max(0.0, state["ends"] - time.time()) if state.get("ends") else None
        how: dict[str, Any] = {name: state[name] for name in ("phase", "done", "total", "attempt")}
        return Status(job.id, "running", job.created, seconds_left=left, request=job.request, **how)

    def preview(self, id: str) -> bytes | None:
        raw = self.storage.peek_data(f"preview:{id}")
        return None if raw is EmptyData else bytes(raw)

    def cancel(self, id: str) -> None:
        """A waiting job ends at once, a running one within a step."""
        if self.read(f"state:{id}") is None:
            self.end(id, "cancelled", 1)
        else:
            self.write(f"cancel:{id}", True)

    def delete(self, id: str) -> None:
        """Forget an ended job and its files."""
        self.files.delete(id)
        keys = [f"{kind}:{id}" for kind in ("state", "preview", "cancel", "job")]
        for key in (*keys, *(f"claim:{id}:{attempt + 1}" for attempt in range(ATTEMPTS)), f"end:{id}"):
            self.storage.delete_data(key)
        self._ended.pop(id, None)

    def queued(self) -> list[tuple[str, int]]:
        """(job, attempt) of what waits, next first; as of half a second ago."""
        when, queue = self._queue
        if time.monotonic() - when >= SNAPSHOT:
            queue = list(dict.fromkeys((task.args[0], task.args[1]) for task in self.huey.pending()))
            queue = [each for each in queue if self._end_of(each[0]) is None]
            self._queue = time.monotonic(), queue
        return queue

    # A worker's side

    def unwanted(self, id: str) -> bool:
        """Whether a running job shall stop: cancelled, or ended by another attempt."""
        return bool(self.storage.peek_many([f"cancel:{id}", f"end:{id}"]))

    def claim(self, id: str, attempt: int, worker: dict[str, Any]) -> bool:
        """Whether this worker, and no other, makes the attempt."""
        if self.read(f"job:{id}") is None or self.read(f"end:{id}") is not None:
            return False
        return self.write_once(f"claim:{id}:{attempt}", worker)

    def end(self, id: str, state: State, attempt: int, message: str | None = None, **more: Any) -> bool:
        """Whether this was the job's first end; a later one counts for nothing."""
        record = {"state": state, "attempt": attempt, "message": message, "time": time.time(), **more}
        first = self.write_once(f"end:{id}", record)
        self.storage.delete_data(f"preview:{id}")
        return first

    # Housekeeping

    def recover(self) -> None:
        """Queue again what a dead worker held or a dead server did not queue; a job that killed two workers fails.

        A worker that died with its server says nothing about its job.
        """
        items = self.storage.result_items()
        queued = {(task.args[0], task.args[1]) for task in self.huey.pending()}
        for key in [key for key in items if key.startswith("job:") and f"end:{key[4:]}" not in items]:
            id = key[4:]
            claims = takewhile(items.__contains__, (f"claim:{id}:{n}" for n in count(1)))
            workers = [json.loads(bytes(items[claim])) for claim in claims]
            if workers and self._alive(workers[-1], items):
                continue
            attempts = len(workers)
            deaths = sum(not worker.get("watched") or f"death:{worker['id']}" in items for worker in workers)
            if deaths >= DEATHS or attempts >= ATTEMPTS:
                text = f"The process that made this video died at it {attempts} times, perhaps for lack of memory."
                self.end(id, "failed", attempts, text)
            elif (id, attempts + 1) not in queued:
                age = time.time() - json.loads(bytes(items[key]))["created"]
                if attempts or age > GRACE:
                    self._enqueue(id, attempts + 1, priority=1)

    def trim(self, most_bytes: float) -> None:
        """Delete the oldest ended jobs until the others' files take no more than ``most_bytes``."""
        ends, jobs = self.records("end:"), self.records("job:")
        sizes = {id: job["bytes"] + ends.get(id, {}).get("bytes", 0) for id, job in jobs.items()}
        total = sum(sizes.values())
        for id in sorted(ends, key=lambda id: ends[id]["time"]):
            if total <= most_bytes:
                break
            total -= sizes.get(id, 0)
            self.delete(id)

    def used_bytes(self) -> int:
        ends = self.records("end:")
        return sum(job["bytes"] + ends.get(id, {}).get("bytes", 0) for id, job in self.records("job:").items())

    def _enqueue(self, id: str, attempt: int, priority: int = 0) -> None:
        self.huey.enqueue(self._task.s(id, attempt, priority=priority))
        self._queue = (-SNAPSHOT, [])

    def _end_of(self, id: str) -> dict[str, Any] | None:
        if id not in self._ended:
            end = self.read(f"end:{id}")
            if end is None:
                return None
            if len(self._ended) > 1000:
                self._ended.clear()
            self._ended[id] = end
        return self._ended[id]

    @staticmethod
    def _alive(worker: dict[str, Any], items: dict[str, Any]) -> bool:
        if worker["machine"] == machine():
            start = born(worker["pid"])
            return start is not None and abs(start - worker["born"]) < 2  # clocks are set, by little
        beat = items.get(f"beat:{worker['id']}")
        return beat is not None and time.time() - json.loads(bytes(beat)) < SILENT


def connect(options: Options) -> Huey:
    """The queue: Redis where its URL is given, else SQLite."""
    if options.redis:
        return PriorityRedisHuey("skyreels", url=options.redis)
    options.folder.mkdir(parents=True, exist_ok=True)
    return SqliteHuey("skyreels", filename=str(options.folder / "queue.db"), timeout=30)


def born(pid: int) -> float | None:
    """When a process of this machine started; None where there is none of that number, or a dead one."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def new_id() -> str:
    """128 bits that nobody guesses."""
    return secrets.token_urlsafe(16)
