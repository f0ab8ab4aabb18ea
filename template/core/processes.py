"""One training in several processes, on one machine or many: `torchrun --nproc-per-node=N main.py …`.

torchrun tells each process its rank and how many there are. The batch is shared out: `--batch-size` is that of all
processes together, so learning rate, steps and results stay those of one process. Rank 0 alone writes and prints.
Without torchrun there is one process, of rank 0, and nothing here does anything.
"""

import atexit
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from core.errors import UserError

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes there are, on all machines together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def init_distributed(device: "torch.device", batch_size: int) -> None:
    """Connects the processes, by NCCL on GPUs and by gloo on CPUs.

    Args:
        device: of this process.
        batch_size: of all together.

    Raises:
        UserError: the batch cannot be shared out evenly, and then the mean of the shares' gradients would not be that
            of the batch.
    """
    if world_size() == 1:
        return
    if batch_size % world_size():
        more = batch_size + world_size() - batch_size % world_size()
        raise UserError(f"--batch-size {batch_size} cannot be shared by {world_size()} processes; try {more}")
    import torch

    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=timedelta(hours=1))
    atexit.register(torch.distributed.destroy_process_group)
    barrier()  # or one that ends at once, with an error, would leave others connecting to it for an hour


@contextmanager
def local_main_first() -> Iterator[None]:
    """One process of each machine goes through this context first, and the others find in caches what it has left."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not first:
        barrier()
    yield
    if first:
        barrier()


def barrier() -> None:
    """Until all processes are here."""
    if world_size() > 1:
        from torch.distributed import barrier

        barrier()


def turns() -> list[tuple[int, int]]:
    """How work whose results are files is shared out: (which part is this process's, of how many), twice.

    First among all processes. What a process does not find then, because it lies on another machine's disk, is shared
    out among those of its own machine.
    """
    if world_size() == 1:
        return [(0, 1)]
    return [(rank(), world_size()), (int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1)))]


def broadcast_object(value: Value) -> Value:
    """What this is in the process of rank 0; any object that can be pickled."""
    if world_size() == 1:
        return value
    from torch.distributed import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]


def gather(share: "torch.Tensor") -> "torch.Tensor":
    """Puts together what the processes have computed: item i comes from process i modulo their number.

    Args:
        share: (n, …) on the CPU; n may differ by one between processes.

    Returns:
        (N, …), the same in all processes.
    """
    if world_size() == 1:
        return share
    from torch.distributed import all_gather_object

    shares = [share] * world_size()
    all_gather_object(shares, share)
    whole = share.new_empty((sum(map(len, shares)), *share.shape[1:]))
    for i, other in enumerate(shares):
        whole[i :: world_size()] = other
    return whole


def weighted_all_reduce(sums: dict[str, float], counts: dict[str, int]) -> dict[str, float]:
    """Sums over all processes, each divided by the sum of its count."""
    import torch

    both = torch.tensor([list(sums.values()), [counts[name] for name in sums]], dtype=torch.float64)
    torch.distributed.all_reduce(both)
    return dict(zip(sums, (both[0] / both[1]).tolist(), strict=True))


def broadcast_parameters(network: "torch.nn.Module", buffers_only: bool = False) -> None:
    """Makes a network what it is in the process of rank 0: its weights, or only the statistics of its BatchNorms."""
    if world_size() > 1:
        from torch.distributed import broadcast

        for value in network.buffers() if buffers_only else network.state_dict().values():
            broadcast(value, 0)


def wrap_ddp(network: "torch.nn.Module", device: "torch.device") -> "torch.nn.Module":
    """The network, its gradients averaged over the processes from now on.

    What is frozen now stays out of it, so it has to be wrapped again when that begins to train. Buffers are not kept
    equal at every batch: in validation the processes need not have equally many.

    Args:
        network: on any device.
        device: to which it is moved.
    """
    network = network.to(device)
    if world_size() == 1:
        return network
    from torch.nn.parallel import DistributedDataParallel

    ids = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():  # newer versions of torch have another name for it, older ones only this
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)


def is_first_to_report(message: str) -> bool:
    """Whether no other process has said the same: what is wrong with options or data is so for all of them."""
    if world_size() == 1:
        return True
    from torch.distributed import TCPStore

    try:
        port = int(os.environ["MASTER_PORT"])
        store = TCPStore(os.environ["MASTER_ADDR"], port, is_master=False, timeout=timedelta(seconds=10))
        return store.add(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)} {message}", 1) == 1
    except (KeyError, ValueError, RuntimeError):
        return rank() == 0
