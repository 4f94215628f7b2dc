"""As many threads as the machine really offers: more of them fight each other for the same processors."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path


def offered_cores(root: Path = Path("/")) -> int:
    """How many processors this process may keep busy: its affinity, and the quotas of its control groups (Linux).

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([affinity, *_quotas(root)])))


def bound_threads() -> int:
    """Let torch, numpy and scipy use no more threads than there are processors for them; returns how many.

    Call it before they are imported; of those that are, torch still obeys. OMP_NUM_THREADS, where it is set (torchrun
    does), stays as it is.

    Threads that wait for each other sleep: spinning, as OpenMP would have it, made the demo 13 times as slow on two
    processors of which another program used one, and saves a tenth where none does (OMP_WAIT_POLICY=ACTIVE).
    """
    cores = offered_cores()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(cores)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(cores)
    return cores


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each control group of this process is granted; none where there is no limit."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        if "cpu" in controllers.split(","):  # version 1
            mount, files = root / "sys/fs/cgroup/cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        elif not controllers:
            mount, files = root / "sys/fs/cgroup", ("cpu.max",)
        else:
            continue
        group = mount / path.strip("/")
        for folder in {group, *group.parents, mount}:  # in a container its own group is mounted as the top one
            if folder == mount or mount in folder.parents:
                try:
                    quota, period = " ".join((folder / name).read_text() for name in files).split()
                    if quota not in ("max", "-1"):
                        yield int(quota) / int(period)
                except (OSError, ValueError):
                    continue
