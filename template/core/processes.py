"""Distributed training, on one machine or several: `torchrun --nproc-per-node=N main.py …`.

`--batch-size` is that of all processes together, so learning rate, steps and results are those of one process. Rank 0
alone writes and prints. Without torchrun, the functions here do nothing.
"""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from core.environment import local_rank, world_size
from core.errors import UserError


def init_distributed(device: torch.device, batch_size: int) -> None:
    """Connect the processes, by NCCL on GPUs and by gloo on CPUs.

    Raises:
        UserError: the batch cannot be divided equally, so the mean of the gradients would not be that of the batch.
    """
    if world_size() == 1:
        return
    if batch_size % world_size():
        larger = batch_size + world_size() - batch_size % world_size()
        raise UserError(
            f"--batch-size {batch_size} cannot be divided among {world_size()} processes; try {larger}"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(hours=1))
    atexit.register(distributed.destroy_process_group)
    barrier()  # if one process ended before the others are connected, they would wait for it for an hour


def barrier() -> None:
    """Wait until all processes have called this."""
    if world_size() > 1:
        distributed.barrier()


@contextmanager
def local_main_first() -> Iterator[None]:
    """Let one process of each machine run this context before the others, which then find its files in the cache."""
    if local_rank() > 0:
        barrier()
    yield
    if local_rank() == 0:
        barrier()


def broadcast_object(value: Any) -> Any:
    """Return the value that rank 0 has."""
    values = [value]
    if world_size() > 1:
        distributed.broadcast_object_list(values)
    return values[0]


def gather(shard: torch.Tensor) -> torch.Tensor:
    """Combine results (n, …) on the CPU into (N, …), where item i comes from process i modulo their number."""
    if world_size() == 1:
        return shard
    parts = [shard] * world_size()
    distributed.all_gather_object(parts, shard)
    whole = shard.new_empty((sum(map(len, parts)), *shard.shape[1:]))
    for i, part in enumerate(parts):
        whole[i :: world_size()] = part
    return whole


def weighted_mean(value: float, weight: float) -> float:
    """Return the mean of the values that all processes have, by their weights."""
    totals = torch.tensor([value * weight, weight], dtype=torch.float64)
    distributed.all_reduce(totals)
    return (totals[0] / totals[1]).item()


def broadcast_parameters(network: nn.Module, buffers_only: bool = False) -> None:
    """Copy the weights of rank 0 to the other processes; with `buffers_only`, only its BatchNorm statistics."""
    if world_size() > 1:
        for value in network.buffers() if buffers_only else network.state_dict().values():
            distributed.broadcast(value, 0)


def wrap_ddp(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, and average its gradients over the processes.

    Frozen parameters are left out, so wrap a network again after unfreezing. Buffers are not synchronised: in
    validation the processes may have different numbers of batches.
    """
    network = network.to(device)
    if world_size() == 1:
        return network
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, forward_sync_buffers=False)
