"""The queue: nothing is lost or done twice, whoever is killed; disk is bounded; Redis and S3 are the same to it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from running import PATIENCE, Running, ended, free_port, submit, wait_until

from skyreels_audio.app.jobs import ATTEMPTS, DEATHS, Job, Jobs, born
from skyreels_audio.app.options import Options, machine
from skyreels_audio.app.render import PRESETS
from skyreels_audio.app.worker import Worker


def options(folder: Path, **given: Any) -> Options:
    asked: dict[str, Any] = {"model": "none", "data": str(folder), "renderer": "stub_renderer:StubRenderer", **given}
    return Options(**asked)


def job(id: str, size: int = 100, created: float | None = None) -> Job:
    return Job(id, "owner", {"preset": "good"}, [], time.time() if created is None else created, size)


DEAD: dict[str, Any] = {"id": "w", "machine": machine(), "pid": 2**22 - 1, "born": 0.0}
ALIVE = {"id": "w", "machine": machine(), "pid": os.getpid(), "born": born(os.getpid())}


@pytest.fixture(params=["sqlite", "redis"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Jobs:
    redis = request.getfixturevalue("redis") if request.param == "redis" else None
    made = Jobs(options(tmp_path, redis=redis))
    made.huey.flush()
    return made


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    from redis import Redis
    from redis.exceptions import ConnectionError as Unreachable

    def answers() -> bool:
        try:
            return bool(Redis.from_url(url).ping())
        except Unreachable:
            return False

    wait_until(answers)
    yield url
    process.kill()
    process.wait()


def test_one_worker_gets_an_attempt_and_one_end_counts(jobs: Jobs) -> None:
    jobs.submit(job("a"))
    assert [jobs.claim("a", 1, ALIVE) for _ in range(3)] == [True, False, False]
    assert [jobs.end("a", "finished", 1), jobs.end("a", "failed", 2)] == [True, False]
    found = jobs.job("a")
    assert found is not None and jobs.status(found).state == "finished"
    assert not jobs.claim("a", 2, ALIVE)


def test_the_living_keep_their_jobs_and_the_dead_lose_them(jobs: Jobs) -> None:
    for id, worker in (("alive", ALIVE), ("dead", DEAD)):
        jobs.submit(job(id))
        jobs.huey.dequeue()
        assert jobs.claim(id, 1, worker)
    jobs.recover()
    jobs.recover()
    assert jobs.queued() == [("dead", 2)]
    jobs.huey.dequeue()
    assert jobs.claim("dead", 2, DEAD)
    jobs.recover()
    found = jobs.job("dead")
    assert found is not None and jobs.status(found).state == "failed"


def test_a_job_is_not_blamed_for_a_death_of_the_whole_server(jobs: Jobs) -> None:
    jobs.submit(job("a"))
    jobs.huey.dequeue()
    alone = {5, 7}  # attempts whose workers die while their watch lives
    for attempt in range(1, 8):
        worker = DEAD | {"id": str(attempt), "watched": True}
        assert jobs.claim("a", attempt, worker)
        if attempt in alone:
            jobs.write(f"death:{attempt}", -9)
        jobs.recover()
        assert [task.args for task in jobs.huey.pending()] == ([] if attempt == 7 else [("a", attempt + 1)])
        jobs.huey.dequeue()
    found = jobs.job("a")
    assert found is not None and jobs.status(found).state == "failed"


def test_a_job_that_takes_the_server_down_every_time_fails(jobs: Jobs) -> None:
    jobs.submit(job("a"))
    for attempt in range(1, ATTEMPTS + 1):
        assert jobs.claim("a", attempt, DEAD | {"watched": True})
    jobs.recover()
    found = jobs.job("a")
    assert found is not None and jobs.status(found).state == "failed"
    jobs.delete("a")
    assert not jobs.records("claim:")


def test_what_a_killed_server_did_not_queue_is_queued_first(jobs: Jobs) -> None:
    jobs.submit(job("later"))
    lost = job("lost", created=time.time() - 60)
    jobs.write(f"job:{lost.id}", vars(lost))
    jobs.recover()
    assert jobs.queued() == [("lost", 1), ("later", 1)]
    assert jobs.status(lost).position == 1


def test_a_worker_of_another_machine_lives_while_it_beats(jobs: Jobs) -> None:
    jobs.submit(job("far"))
    jobs.huey.dequeue()
    jobs.write("beat:there", time.time())
    jobs.claim("far", 1, DEAD | {"id": "there", "machine": "another"})
    jobs.recover()
    assert jobs.huey.pending_count() == 0
    jobs.write("beat:there", time.time() - 100)
    jobs.recover()
    assert jobs.huey.pending_count() == 1


def test_the_oldest_ended_jobs_make_room(jobs: Jobs) -> None:
    for index in range(5):
        jobs.submit(job(str(index), size=100))
        if index != 1:
            jobs.end(str(index), "finished", 1, bytes=900)
            jobs.write(f"end:{index}", jobs.read(f"end:{index}") | {"time": index})
    jobs.trim(2150)
    assert sorted(jobs.records("job:")) == ["1", "3", "4"]  # the waiting one is never deleted
    assert jobs.used_bytes() == 2100


def test_speeds_are_measured_once_and_no_job_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    made.touch()
    monkeypatch.setenv("STUB_LOG", str(made))
    worker = Worker(options(tmp_path / "data"))
    worker.jobs.submit(job("a"))
    worker.measure()
    assert not made.read_text()
    worker.jobs.huey.flush()
    for _ in range(2):
        worker.measure()
        assert made.read_text().split() == ["0"] * len(PRESETS)


def test_kills_of_the_server_lose_nothing(tmp_path: Path) -> None:
    server = Running(tmp_path / "data", requests_per_minute=1000)
    server.know_speeds()
    with server.start().client() as client:
        finished = submit(client, tmp_path, seed="1")
        ended(client, finished["id"])
        running = submit(client, tmp_path, prompt="held two", seed="2")
        waiting = [submit(client, tmp_path, seed=str(seed)) for seed in (3, 4)]
        for attempt in range(1, DEATHS + 1):  # in the midst of the same job, which is not to blame
            how = {"state": "running", "attempt": attempt}
            wait_until(lambda how=how: how.items() <= client.get(f"/api/jobs/{running['id']}").json().items())
            workers = psutil.Process(server.process.pid).children()
            server.kill()
            psutil.wait_procs(workers, timeout=PATIENCE)
            assert not any(worker.is_running() for worker in workers)  # they end with the server
            if attempt < DEATHS:
                server.start()
        server.release("two")
        with server:
            for each in (finished, running, *waiting):
                assert ended(client, each["id"])["state"] == "finished"
            assert client.get(f"/api/jobs/{finished['id']}/result").status_code == 200
    assert sorted(server.made.read_text().split()) == ["1", "2", "3", "4"]  # each that was asked for, once


def test_two_servers_and_three_workers_on_one_redis(redis: str, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"redis": redis, "results": str(tmp_path / "results"), "token": "a shared long token"}
    one = Running(tmp_path / "one", workers=2, **shared)
    two = Running(tmp_path / "two", workers=1, **shared)
    two.made = one.made
    Jobs(one.options).huey.flush()
    one.know_speeds()
    bearer = {"authorization": "Bearer a shared long token"}
    with one, two, one.client(headers=bearer) as first, two.client(headers=bearer) as second:
        submitted = [submit((first, second)[n % 2], tmp_path, prompt="held on", seed=str(n)) for n in range(6)]
        jobs = Jobs(one.options)
        claims = wait_until(lambda: len(found := jobs.records("claim:")) == 3 and found)
        workers = [psutil.Process(claim["pid"]) for claim in claims.values()]
        next(worker for worker in workers if worker.ppid() == one.process.pid).kill()
        two.kill()  # a server, with its worker
        one.release("on")
        for each in submitted:
            assert ended(first, each["id"])["state"] == "finished"
    ends = [claim for claim in jobs.records("end:").values() if claim["state"] == "finished"]
    assert len(ends) == 6
    assert sorted(one.made.read_text().split()) == list("012345")


def test_results_in_s3_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed")
    import s3fs

    port = free_port()
    server = moto.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        for name, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_REGION", "us-east-1")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        s3fs.S3FileSystem().mkdir("talking")
        worker = Worker(options(tmp_path / "data", results="s3://talking/videos"))
        (tmp_path / "voice.wav").write_bytes((Path(__file__).parents[2] / "examples" / "voice.wav").read_bytes())
        size = worker.jobs.files.put(tmp_path / "voice.wav", "a", "voice.wav")
        asked = {"prompt": "a man", "preset": "fast"}
        worker.jobs.submit(Job("a", "owner", asked, ["voice.wav"], time.time(), size))
        worker.run("a", 1)
        status = worker.jobs.status(Job("a", "owner", asked, [], 0, 0))
        assert status.state == "finished", status
        size = worker.jobs.files.size("a", "1/result.mp4")
        whole = b"".join(worker.jobs.files.read("a", "1/result.mp4", 0, size - 1))
        assert len(whole) == size and b"".join(worker.jobs.files.read("a", "1/result.mp4", 10, 19)) == whole[10:20]
        worker.jobs.delete("a")
        with pytest.raises(FileNotFoundError):
            worker.jobs.files.size("a", "1/result.mp4")
    finally:
        server.stop()
