"""How many threads: what affinity and control groups leave of the machine's processors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skyreels_audio.threads import bound_threads, offered_cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight processors with nothing mounted."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_control_groups_the_affinity_counts(machine: Path) -> None:
    assert offered_cores(machine) == 8


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)]
)
@pytest.mark.parametrize("folder", ["sys/fs/cgroup", "sys/fs/cgroup/job", "sys/fs/cgroup/job/step"])
def test_the_least_quota_of_the_groups_above_counts(machine: Path, folder: str, limit: str, cores: int) -> None:
    write(machine / "proc/self/cgroup", "0::/job/step\n")
    write(machine / folder / "cpu.max", limit + "\n")
    assert offered_cores(machine) == cores


@pytest.mark.parametrize(("quota", "cores"), [(-1, 8), (300000, 3)])
def test_version_one(machine: Path, quota: int, cores: int) -> None:
    write(machine / "proc/self/cgroup", "4:cpu,cpuacct:/job\n3:memory:/job\n")
    write(machine / "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", f"{quota}\n")
    write(machine / "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n")
    assert offered_cores(machine) == cores


def test_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    bound_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_the_command_bounds_threads_before_torch_is_imported() -> None:
    script = """
import os, sys
from skyreels_audio import cli, threads
threads.offered_cores = lambda: 1
cli.app = lambda: None
cli.main()
assert "torch" not in sys.modules and os.environ["OMP_NUM_THREADS"] == "1"
import torch
assert torch.get_num_threads() == 1
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_waiting_threads_sleep_unless_asked_to_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, policy in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that nothing else changes
        monkeypatch.setenv("OMP_WAIT_POLICY", asked or "")
        if asked is None:
            monkeypatch.delenv("OMP_WAIT_POLICY")
        bound_threads()
        assert os.environ["OMP_WAIT_POLICY"] == policy
