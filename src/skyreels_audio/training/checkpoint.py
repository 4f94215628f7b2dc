"""The state of a run: written whole or not at all, hashed, verified when read, the same for any number of processes."""

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from skyreels_audio.media import InputError
from skyreels_audio.training.distributed import World, plain_name

log = logging.getLogger(__name__)
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
NORMS = 50
"""How many norms of gradients are remembered, to tell a spike by."""


@dataclass
class State:
    """Everything that a run is at one step. Weights that are not trained are no part of it.

    Attributes:
        step: finished steps.
        modules: what is trained, and what it needs.
        optimizer: AdamW over all trained weights.
        averaged: exponential moving averages of the trained weights, by name.
        norms: norms of the last gradients that were applied.
        jump: how many batches were left behind by going back (`trainer.fit`).
        stopped: a signal asked the run to end.
    """

    step: int
    modules: nn.ModuleDict
    optimizer: torch.optim.AdamW
    averaged: dict[str, Tensor]
    norms: list[float] = field(default_factory=list)
    jump: int = 0
    stopped: bool = False

    @classmethod
    def fresh(cls, modules: nn.ModuleDict, optimizer: torch.optim.AdamW) -> "State":
        state = cls(0, modules, optimizer, {})
        state.averaged = {name: p.detach().clone() for name, p in state.trained().items()}
        return state

    def trained(self) -> dict[str, nn.Parameter]:
        return {plain_name(name): p for name, p in self.modules.named_parameters() if p.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name, themselves, not copies."""
        trained = self.trained()
        named: dict[str, Tensor] = {f"model/{name}": p.detach() for name, p in trained.items()}
        buffers = dict(self.modules.named_buffers()).keys() & self.modules.state_dict().keys()
        named |= {f"model/{plain_name(name)}": self.modules.get_buffer(name) for name in sorted(buffers)}
        named |= {f"averaged/{name}": tensor for name, tensor in self.averaged.items()}
        for name, parameter in trained.items():
            slots = self.optimizer.state[parameter]
            if not slots:  # before the first step
                slots |= {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
                slots["step"] = torch.tensor(0.0)
            named |= {f"{slot}/{name}": slots[slot] for slot in MOMENTS}
        return named

    @contextmanager
    def averaging(self) -> Iterator[nn.ModuleDict]:
        """The modules, with averaged weights and ready to evaluate for as long as the block lasts."""
        kept = {name: p.detach().clone() for name, p in self.trained().items()}
        modes = {name: module.training for name, module in self.modules.items()}
        self._set(self.averaged)
        self.modules.eval()
        try:
            yield self.modules
        finally:
            self._set(kept)
            for name, module in self.modules.items():
                module.train(modes[name])

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.trained().items():
            parameter.copy_(values[name])

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """One step of the moving average, whose memory grows with the run so that it forgets the start at once."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.trained().items():
            self.averaged[name].lerp_(parameter.detach(), 1 - decay)


def save_state(state: State, folder: Path, keep: int, world: World) -> None:
    """Write the state beside older ones; of those, the ``keep`` newest stay.

    Raises:
        InputError: it cannot be written; what was there stays as it was.
    """
    partial, final = folder / "state.partial", folder / f"state-{state.step:07d}"
    if world.any(final.exists()):  # a step has one state
        return
    problem = None
    try:
        if world.first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        world.barrier()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is one process alone
            save(state.tensors(), checkpoint_id=partial, no_dist=world.size == 1)
        own = [path for path in partial.iterdir() if path.name.startswith(f"__{world.rank}_")]
        hashes = {path.name: _settle(path) for path in own}
    except (OSError, RuntimeError, CheckpointException) as error:
        problem, hashes = _reason(error), {}
    everything = world.gather(hashes)
    problems = [told for told in world.gather(problem) if told]
    if world.first and not problems:
        try:
            hashes = {name: digest for each in everything for name, digest in each.items()}
            hashes[".metadata"] = _settle(partial / ".metadata")
            told = {"step": state.step, "norms": state.norms, "jump": state.jump, "files": hashes}
            (partial / "state.json").write_text(json.dumps(told, indent=1))
            _settle(partial / "state.json")
            partial.rename(final)
            for old in sorted(folder.glob("state-*"))[:-keep]:
                shutil.rmtree(old)
        except OSError as error:
            problems = [_reason(error)]
    problems = world.gather(problems)[0]
    if problems:
        if world.first:
            shutil.rmtree(partial, ignore_errors=True)
        newest = max(folder.glob("state-*"), default=None)
        intact = f"{newest.name} is intact" if newest else "there is none yet"
        raise InputError(
            f"The state of step {state.step} cannot be written to {folder} ({problems[0]}); of the older ones "
            f"{intact}: make room and run the same command again."
        )


def load_state(state: State, folder: Path, world: World) -> bool:
    """Go on from the newest intact state under ``folder``, if there is any; says whether there was.

    Raises:
        InputError: there are states, but all are damaged, or they belong to another model.
    """
    found = sorted(folder.glob("state-*"), reverse=True)
    for newest in found:
        faults = [fault for fault in world.gather(_fault(newest, world)) if fault]
        if faults:
            log.warning("%s is damaged (%s); going on from the one before.", newest, faults[0])
            continue
        tensors = state.tensors()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load(tensors, checkpoint_id=newest, no_dist=world.size == 1)
        except (CheckpointException, RuntimeError, ValueError) as error:
            raise InputError(
                f"{newest} belongs to another model ({_reason(error)}); give another output, or delete it."
            ) from None
        state._set({name: tensors[f"model/{name}"] for name in state.trained()})
        told = json.loads((newest / "state.json").read_text())
        state.step, state.norms, state.jump = told["step"], told["norms"], told["jump"]
        return True
    if found:
        raise InputError(f"All states under {folder} are damaged; delete them to begin anew.")
    return False


def _fault(folder: Path, world: World) -> str | None:
    """What is wrong with a state's files, of which every process looks at its share."""
    try:
        files = json.loads((folder / "state.json").read_text())["files"]
        for name, digest in sorted(files.items())[world.rank :: world.size]:
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return f"{name} has changed"
    except (OSError, ValueError, KeyError) as error:
        return _reason(error)
    return None


def _settle(path: Path) -> str:
    """Make sure that the file is on the disk; returns its SHA-256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointException) and error.failures:
        return _reason(next(iter(error.failures.values()))[0])
    return getattr(error, "strerror", None) or (str(error).strip().splitlines() or [type(error).__name__])[0]
