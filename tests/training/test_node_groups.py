"""Two machines, as torchrun starts a group of processes on each and as a cluster takes one away, here on one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from skyreels_audio.training.flow import FlowTask
from skyreels_audio.training.trainer import fit
from tests.training.flow_parts import NoiseSource, flow_recipe, save_transformer
from tests.training.processes import PATIENCE, free_port

ROOT, STEPS = Path(__file__).parents[2], 20
LEAVING = 400.0  # seconds: of two groups that end at once torchrun may let one wait five minutes for the other


def node_groups(folder: Path) -> list[subprocess.Popen[bytes]]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--local-addr", "127.0.0.1"]
    command = [*torchrun, "-m", "tests.training.node_group", str(folder), "groups", str(STEPS)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return [subprocess.Popen(command, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}) for _ in range(2)]


def losses(run: Path) -> list[float]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row["loss"] for row in (json.loads(line) for line in lines if line.endswith("}")) if "loss" in row]


def test_a_cluster_takes_one_of_two_machines_and_the_same_command_goes_on(tmp_path):
    save_transformer(tmp_path / "model")
    recipe, run = flow_recipe(tmp_path), tmp_path / "groups"
    groups = node_groups(tmp_path)
    try:
        deadline = time.monotonic() + PATIENCE
        while len(losses(run)) < 2 and time.monotonic() < deadline and groups[0].poll() is None:
            time.sleep(0.02)
        groups[1].send_signal(signal.SIGTERM)
        groups[1].wait(PATIENCE)
        saved = run / f"state-{len(losses(run)):07d}"
        while not saved.exists() and time.monotonic() < deadline:  # by both of them
            time.sleep(0.02)
        assert 2 <= len(losses(run)) < STEPS and saved.exists()
        groups[0].kill()  # else torchrun waits five minutes for the group that left

        groups = node_groups(tmp_path)
        assert [group.wait(LEAVING) for group in groups] == [0, 0]
    finally:
        for group in groups:
            group.kill()
    torch.manual_seed(0)
    task = FlowTask(recipe, torch.device("cpu"), NoiseSource())
    fit(task, recipe.optimisation.model_copy(update={"steps": STEPS}), tmp_path / "alone")
    assert len(losses(run)) == STEPS
    assert max(abs(a - b) for a, b in zip(losses(run), losses(tmp_path / "alone"), strict=True)) < 1e-5
