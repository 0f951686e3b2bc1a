"""Data-parallel training of one expert: each process computes its rows of a batch, and one flat gradient is summed a step.

    torchrun --nproc-per-node 2 --no-python staf train --experts entity_synonymy --out experts

All processes start with the same factors and add the same summed gradient, so importance, masks and optimiser are equal
without being sent. Dropout differs by process; only the main process writes. A base that does not fit on one device can be
sharded with FSDP2: its frozen layers are spread over the processes and gathered one at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
from torch import Tensor, distributed

from staf.errors import ConfigError, TrainingFailed
from staf.lm.base import DTYPES, Base, choose_dtype, default_device, load_base
from staf.lm.batches import Batch

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, which may be preparing data."""


@dataclass(frozen=True)
class World:
    """This process among those that train one expert; by default the only one, without torch.distributed."""

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """True for the process that writes and prints."""
        return self.rank == 0

    def rows(self, batch: Batch) -> Batch:
        """This process's rows of a batch; with none, the first row, of which nothing is predicted."""
        count = batch.ids.shape[0]
        own = slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)
        if own.start == own.stop:
            return replace(batch, ids=batch.ids[:1], answer=torch.zeros_like(batch.answer[:1]), example_ids=())
        return replace(batch, ids=batch.ids[own], answer=batch.answer[own], example_ids=batch.example_ids[own])

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes, and return it."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, number: int) -> int:
        """The number of the main process."""
        return int(self.all_reduce(torch.tensor(number if self.is_main_process else 0)))

    def check_same(self, number: int, what: str) -> None:
        """Raise TrainingFailed unless this process has the same number as the main process."""
        expected = self.broadcast(number)
        if number != expected:
            raise TrainingFailed(
                f"process {self.rank} of {self.size} has another {what} than process 0 ({number}, not {expected}). "
                "All machines must see the same base, data and --out folder: put them on a shared file system."
            )

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.broadcast(0)

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The main process runs the block first, so that what it downloads and converts is there for the others."""
        if not self.is_main_process:
            self.barrier()
        yield
        if self.is_main_process:
            self.barrier()

    def seed_step(self, seed: int, step: int) -> None:
        """Seed this process by seed, step and rank, so that processes differ and a resumed training draws the same."""
        digest = hashlib.sha256(f"{seed}/{step}/{self.rank}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


SINGLE_PROCESS = World()


@contextmanager
def init_distributed() -> Iterator[World]:
    """The processes that torchrun has started, for a `with` block; by Gloo on CPUs, by NCCL on GPUs, one for each process.

    Raises:
        ConfigError: the environment names several processes and not how to meet them.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set. Start the command by torchrun, or unset WORLD_SIZE."
        )
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=PATIENCE)
    yield World(distributed.get_rank(), size)
    distributed.destroy_process_group()  # not after an error: the others may wait for what never comes


def open_base(name: str | None, dtype: str | None, world: World, sharded: bool, device: str | None = None) -> Base:
    """Load a base in this process, in the dtype that the main process chooses; with `sharded`, spread over the processes.

    Raises:
        ConfigError: sharding in one process. Others as `load_base`.
    """
    check_fsdp(world, sharded)
    if dtype is None:
        chosen = list(DTYPES.values()).index(choose_dtype(torch.device(device) if device else default_device())[0])
        dtype = list(DTYPES)[world.broadcast(chosen)]
    return shard(load_base(name, dtype=dtype, device="cpu"), world) if sharded else load_base(name, dtype=dtype, device=device)


def check_fsdp(world: World, sharded: bool) -> None:
    """Raise ConfigError if a base is to be spread over a single process."""
    if sharded and world.size == 1:
        raise ConfigError(
            "--fsdp spreads the base over several processes, but there is one. "
            "Start the command by torchrun --nproc-per-node 2 --no-python staf train ..., or leave it out."
        )


def shard(base: Base, world: World) -> Base:
    """Spread the frozen decoder layers of a base over the processes; each keeps all of embeddings and head.

    Args:
        base: on the processor, so that only its shards come to a device; it must not be used afterwards.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = default_device()
    mesh = init_device_mesh(device.type, (world.size,))
    decoder = base.model.get_decoder()
    around = set(decoder.parameters()) - set(decoder.layers.parameters())
    for layer in decoder.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(decoder, mesh=mesh, ignored_params=around)
    base.model.to(device)
    return replace(base, device=device)


def is_sharded(base: Base) -> bool:
    """True if the layers of a base are spread over processes: their weights are gone after the backward pass of a layer."""
    return hasattr(base.model.get_decoder(), "reshard")
