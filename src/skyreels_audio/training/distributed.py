"""Several processes on one training: who this is, what they agree on, and how modules are spread over them.

Start with ``torchrun --nproc-per-node N -m skyreels_audio train RECIPE``.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from skyreels_audio.acceleration.ranks import local_rank, rank, world_size


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def any(self, here: bool) -> bool:
        """Is it so in any process? All must ask."""
        if self.size == 1:
            return here
        answer = torch.tensor(float(here), device=self.device)
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        return bool(answer)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar over all processes."""
        if self.size == 1:
            return value
        total = value.detach().clone().to(self.device)
        dist.all_reduce(total)
        return total / self.size

    def gather(self, value: Any) -> list[Any]:
        """What every process has, in the order of their ranks."""
        if self.size == 1:
            return [value]
        everything: list[Any] = [None] * self.size
        dist.all_gather_object(everything, value)
        return everything

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: str | None) -> Iterator[World]:
    """The world that torchrun made, or this process alone; ``device`` None: a GPU if there is one."""
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if world_size() == 1:
        yield World(torch.device(kind))
        return
    place = torch.device(kind, local_rank()) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield World(place, rank(), world_size())
    finally:
        _ended.append(dist.group.WORLD)
        dist.destroy_process_group()


# The last to hold a group must not be DDP's reducer. It destroys the group while it holds the interpreter's lock, and
# waits for a thread of gloo that waits for this lock to let go of a tensor: now and then a training hung at its end.
_ended: list[Any] = []


def spread(modules: nn.ModuleDict, world: World, parallel: str, half: bool) -> None:
    """Spread what is trained over all processes, in place.

    "fsdp": weights, gradients and the optimiser's state in shards (FSDP2), each repeated block on its own. "ddp": a
    copy in every process. ``half``: compute in bfloat16; reductions stay float32.
    """
    if world.size == 1:
        return
    for name, module in list(modules.items()):
        if not any(parameter.requires_grad for parameter in module.parameters()):
            continue
        if parallel == "ddp":
            ids = [world.device.index] if world.device.type == "cuda" else None
            modules[name] = nn.parallel.DistributedDataParallel(module, device_ids=ids)
            continue
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(world.device.type, (world.size,))
        policy = MixedPrecisionPolicy(torch.bfloat16 if half else None, torch.float32, cast_forward_inputs=False)
        repeated = getattr(module, "_no_split_modules", None) or []
        for part in list(module.modules()):
            if type(part).__name__ in repeated:
                fully_shard(part, mesh=mesh, mp_policy=policy)
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)  # weights are looked at in between


@contextmanager
def without_sync(modules: nn.ModuleDict) -> Iterator[None]:
    """Gradients of the block are kept here; the next backward pass outside of it averages them over all processes."""
    sharded = [module for module in modules.values() if hasattr(module, "set_requires_gradient_sync")]
    with ExitStack() as stack:
        for module in modules.values():
            if isinstance(module, nn.parallel.DistributedDataParallel):
                stack.enter_context(module.no_sync())
        for module in sharded:
            module.set_requires_gradient_sync(False)  # pyright: ignore[reportCallIssue]
        try:
            yield
        finally:
            for module in sharded:
                module.set_requires_gradient_sync(True)  # pyright: ignore[reportCallIssue]


def plain_name(name: str) -> str:
    """The name of a weight without what DDP puts around it: states move between one process and many."""
    parts = name.split(".")
    return ".".join(part for index, part in enumerate(parts) if not (index == 1 and part == "module"))


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may lie in shards, put together in every process."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
