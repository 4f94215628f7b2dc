"""Curation on a real Ray cluster of two nodes made of processes on this machine: what survives which kill.

    python benchmarks/curation_cluster.py [--sources 40]

A worker, then a node, then the driver is killed while a pool is scored; one of its videos crashes every worker that
opens it. In the end every source has its rows exactly once, files that were finished were not written again, and the
poison is quarantined.
"""

import argparse
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "curation"))

from curation_support import quick_recipe, scene, write  # noqa: E402

from skyreels_audio.curation.select import LIGHT, read_rows  # noqa: E402
from skyreels_audio.curation.storage import Folder  # noqa: E402
from skyreels_audio.curation.worker import QUARANTINED  # noqa: E402

PATHS = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "curation")])
QUIET = {"RAY_DEDUP_LOGS": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS, **QUIET}
DRIVER = """
import pickle, ray
from skyreels_audio.curation.engine import curate
if __name__ == "__main__":
    ray.init(address={address!r}, log_to_driver=False)
    outcome = curate(pickle.loads({recipe!r}), {pool!r}, {out!r}, engine="ray", workers=2)
    print("outcome", outcome, flush=True)
"""


def ray(*words: str) -> str:
    command = [sys.executable, "-m", "ray.scripts.scripts", *words]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout


class Cluster:
    """A head with one processor and a second node with another."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        common = ("--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", "100000000", "--disable-usage-stats")
        self._start("--head", "--port", str(port), "--include-dashboard", "false", *common)
        before = raylets()
        self._start("--address", self.address, *common)
        (self.second,) = raylets() - before

    @staticmethod
    def _start(*words: str) -> None:
        ray("start", *words)


def raylets() -> set[int]:
    return {pid for pid, line in processes() if "raylet/raylet" in line.split(" ")[0]}


def processes() -> list[tuple[int, str]]:
    """This user's processes that belong to a cluster: (id, command line)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "ray" in line:
            found.append((int(path.parent.name), line))
    return found


def finished(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "rows").glob("*.parquet")}


def wait_for(out: Path, count: int, driver: subprocess.Popen) -> None:
    while len(finished(out)) < count and driver.poll() is None:
        time.sleep(0.1)
    assert driver.poll() is None, "the run ended before it could be killed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=40)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds that a source takes at least")
    parser.add_argument("--port", type=int, default=6399)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool, out = Path(folder, "pool"), Path(folder, "out")
        pool.mkdir()
        for k in range(given.sources - 1):
            write(pool / f"v{k:03}.mp4", scene(k, 10, 32))
        write(pool / "poison.mp4", scene(0, 10, 32))
        cluster = Cluster(given.port)
        try:
            run(cluster, pool, out, given.sources, given.delay)
        finally:
            ray("stop", "--force")


def run(cluster: Cluster, pool: Path, out: Path, sources: int, delay: float) -> None:
    recipe = pickle.dumps(quick_recipe(delay))
    script = pool.parent / "driver.py"
    script.write_text(DRIVER.format(address=cluster.address, recipe=recipe, pool=str(pool), out=str(out)))

    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, str(script)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)

    driver, begun = start(), time.perf_counter()
    wait_for(out, 3, driver)
    print(f"first three sources after {time.perf_counter() - begun:.0f} s", flush=True)
    actor = next(pid for pid, line in processes() if line.startswith("ray::") and "Scorer" in line)
    os.kill(actor, signal.SIGKILL)
    print(f"killed a worker with {len(finished(out))} finished", flush=True)
    wait_for(out, len(finished(out)) + 4, driver)
    os.kill(cluster.second, signal.SIGKILL)
    print(f"killed a node with {len(finished(out))} finished", flush=True)
    wait_for(out, len(finished(out)) + 4, driver)
    driver.kill()
    driver.wait()
    before = finished(out)
    print(f"killed the driver with {len(before)} finished", flush=True)
    driver = start()
    said, _ = driver.communicate(timeout=1800)
    print(said.strip())
    after = finished(out)
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
