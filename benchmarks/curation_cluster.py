"""Curation on a real Ray cluster of two nodes made of processes on this machine: what survives which kill.

    python benchmarks/curation_cluster.py [--sources 40]

A worker, then a node, then the driver is killed while a pool is scored; one of its videos crashes every worker that
opens it. In the end every source has its rows exactly once, files that were finished were not written again, and the
poison is quarantined.
"""

import argparse
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "curation"))

from curation_support import quick_recipe, scene, write  # noqa: E402

from skyreels_audio.curation.select import LIGHT, read_rows  # noqa: E402
from skyreels_audio.curation.storage import Folder  # noqa: E402
from skyreels_audio.curation.worker import QUARANTINED  # noqa: E402

AGENT_PORTS = [f"{name}-port" for name in ("dashboard-agent-grpc", "dashboard-agent-listen", "metrics-export")]
AGENT_PORTS += ["runtime-env-agent-port"]
START_SECONDS = 600  # that a node may take
PATHS = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "curation")])
QUIET = {"RAY_DEDUP_LOGS": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
# On a machine that others use, Ray's own processes may need minutes to find each other.
PATIENT = {"RAY_agent_register_timeout_ms": "600000", "RAY_raylet_start_wait_time_s": "600"}
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS, **QUIET, **PATIENT}
DRIVER = """
import pickle, ray
from skyreels_audio.curation.engine import curate
if __name__ == "__main__":
    ray.init(address={address!r}, log_to_driver=False)
    outcome = curate(pickle.loads({recipe!r}), {pool!r}, {out!r}, engine="ray", workers=2)
    print("outcome", outcome, flush=True)
"""


class Cluster:
    """A head with one processor and a second node with another. A context manager."""

    def __init__(self, port: int) -> None:
        self.address, self._port = f"127.0.0.1:{port}", port

    def __enter__(self) -> "Cluster":
        try:
            self._start(1, "--head", "--port", str(self._port), "--include-dashboard", "false")
            head = self.found("raylet/raylet")
            self._start(2, "--address", self.address)
            (self.second,) = self.found("raylet/raylet") - head
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, number: int, *words: str) -> None:
        common = ("--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", "100000000", "--disable-usage-stats")
        # Where ports are named, a node does not wait for most of its agents, which on a busy machine come too late.
        ports = [f"--{name}={self._port + 10 * number + k}" for k, name in enumerate(AGENT_PORTS)]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *common, *ports]
        quiet = subprocess.DEVNULL  # no pipes: what it starts would keep them open
        done = subprocess.run(command, env=ENVIRONMENT, timeout=START_SECONDS, stdout=quiet, stderr=quiet)
        assert done.returncode == 0, "a node of the cluster did not start; `ray start` says why"

    def found(self, program: str) -> set[int]:
        """This cluster's processes that run a program."""
        return {pid for pid, line in self._processes() if program in line.split(" ")[0]}

    def _processes(self) -> list[tuple[int, str]]:
        """Ray's processes name the address of their head."""
        port = re.compile(rf"[:=]{self._port}\b")
        return [(pid, line) for pid, line in processes() if "ray" in line.split(" ")[0] or port.search(line)]

    def __exit__(self, *error) -> None:
        for how, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 0)):  # the head's server may not heed the first
            for pid in [pid for pid, line in self._processes() if re.search(rf"[:=]{self._port}\b", line)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
            time.sleep(seconds)


def processes() -> list[tuple[int, str]]:
    """All processes: (id, command line)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found.append((int(path.parent.name), line))
    return found


def finished(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "rows").glob("*.parquet")}


def wait_for(out: Path, count: int, driver: subprocess.Popen, seconds: float) -> None:
    until = time.monotonic() + seconds
    while len(finished(out)) < count:
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < until, f"no progress in {seconds:.0f} s: {len(finished(out))} of {count}"
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=40)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds that a source takes at least")
    parser.add_argument("--patience", type=float, default=600, help="seconds within which a run must get on")
    parser.add_argument("--port", type=int, default=6399)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool, out = Path(folder, "pool"), Path(folder, "out")
        pool.mkdir()
        for k in range(given.sources - 1):
            write(pool / f"v{k:03}.mp4", scene(k, 10, 32))
        write(pool / "poison.mp4", scene(0, 10, 32))
        with Cluster(given.port) as cluster:
            run(cluster, pool, out, given)


def run(cluster: Cluster, pool: Path, out: Path, given: argparse.Namespace) -> None:
    recipe = pickle.dumps(quick_recipe(given.delay))
    script = pool.parent / "driver.py"
    script.write_text(DRIVER.format(address=cluster.address, recipe=recipe, pool=str(pool), out=str(out)))
    more = partial(wait_for, out, seconds=given.patience)

    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, str(script)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)

    driver, begun = start(), time.perf_counter()
    try:
        more(3, driver)
        print(f"first three sources after {time.perf_counter() - begun:.0f} s", flush=True)
        actor = min(cluster.found("Scorer"))
        os.kill(actor, signal.SIGKILL)
        print(f"killed a worker with {len(finished(out))} finished", flush=True)
        more(len(finished(out)) + 4, driver)
        os.kill(cluster.second, signal.SIGKILL)
        print(f"killed a node with {len(finished(out))} finished", flush=True)
        more(len(finished(out)) + 4, driver)
    finally:
        driver.kill()
        driver.wait()
    before = finished(out)
    print(f"killed the driver with {len(before)} finished", flush=True)
    driver = start()
    try:
        said, _ = driver.communicate(timeout=3 * given.patience)
    finally:
        driver.kill()
    print(said.strip())
    after, sources = finished(out), given.sources
    rows = read_rows(Folder(out), LIGHT)
    assert driver.returncode == 0
    assert {name: after[name] for name in before} == before, "a finished file was written again"
    assert len(after) == len(rows) == sources, (len(after), len(rows))
    assert len({row.source for row in rows}) == sources
    poisoned = [row for row in rows if row.error]
    assert [Path(row.source).name for row in poisoned] == ["poison.mp4"], poisoned
    assert (poisoned[0].error or "").startswith(QUARANTINED)
    print(f"{sources} sources: each scored once, the poison quarantined, nothing lost")


if __name__ == "__main__":
    main()
