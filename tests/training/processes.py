"""Trainings in processes of their own, to be killed and to talk to each other.

They are forked from a clean server. Forked from the test's own process they would inherit locks that its other threads
held at that moment (trackers, servers of other tests), and now and then wait for them for ever.
"""

import os
import socket
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from skyreels_audio.training.distributed import joined
from skyreels_audio.training.flow import FlowTask
from skyreels_audio.training.trainer import fit
from tests.training.flow_parts import NoiseSource, flow_recipe
from tests.training.small_task import LineTask, options

PATIENCE = 240  # seconds after which a process counts as hanging
CLEAN = get_context("forkserver")
CLEAN.set_forkserver_preload([__name__])  # what they need is imported once


def start(work: Callable[..., None], *given: Any) -> BaseProcess:
    process = CLEAN.Process(target=work, args=given, daemon=True)
    process.start()
    return process


def wait_until(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Wait while the process lives. A process that hangs is killed and fails the test."""
    give_up = time.monotonic() + PATIENCE
    while process.is_alive() and not condition():
        if time.monotonic() > give_up:
            process.kill()
            raise TimeoutError(f"{process} has hung for {PATIENCE} s")
        time.sleep(0.005)


def end(process: BaseProcess) -> int | None:
    wait_until(lambda: False, process)
    process.join(PATIENCE)
    return process.exitcode


def train_slowly(folder: Path, steps: int) -> None:
    state = fit(LineTask(wait=0.005), options(steps=steps, log_every=1, save_every=7), folder)
    (folder / "ended").write_text(f"{'stopped' if state.stopped else 'finished'} {state.step}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def train_together(ranks: int, folder: Path, name: str, **changes: Any) -> None:
    """Train on noise in so many processes; ``changes`` are those of the optimisation."""
    port = free_port()
    processes = [start(train_as_rank, rank, ranks, port, folder, name, changes) for rank in range(ranks)]
    assert [end(process) for process in processes] == [0] * ranks


def train_as_rank(rank: int, ranks: int, port: int, folder: Path, name: str, changes: dict[str, Any]) -> None:
    """One of several ranks, as torchrun would start it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train_on_noise(folder, name, changes)


def train_on_noise(folder: Path, name: str, changes: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    recipe = flow_recipe(folder, held_out_batches=1)
    training = recipe.optimisation.model_copy(update=changes)
    with joined("cpu") as world:
        torch.manual_seed(0)
        task = FlowTask(recipe.model_copy(update={"optimisation": training}), torch.device("cpu"), NoiseSource())
        fit(task, training, folder / name, world=world)
