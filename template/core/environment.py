"""What is installed, and what this machine is good at."""

import ctypes
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    import torch


def versions(*packages: str) -> dict[str, str | None]:
    """Which ones are installed; None for a package that is not."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def keep_freed_memory(device: "torch.device") -> None:
    """Tell the C library of Linux not to give freed memory back to the system, where the device is the CPU.

    A network on a CPU takes and frees some hundred megabytes in each layer, and the system clears every page before it
    gives it out again. Kept, they need not be cleared: training a resnet50 at batch 32 took 0.66 of the time, with a
    fifth more memory.
    """
    if device.type != "cpu":
        return
    with suppress(OSError, TypeError, AttributeError):  # other systems have no such function
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no piece of memory, however large, is the system's own
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing is given back


def use_bf16(asked: str, frozen: bool, device: "torch.device") -> bool:
    """Whether the backbone computes in bfloat16.

    Args:
        asked: on, off or auto, which does so where it costs nothing: in a backbone that is frozen for good.
        frozen: whether it is.
        device: that it runs on.

    Raises:
        UserError: it should, on a device without instructions for it.
    """
    import torch

    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        fast = False
    if asked == "on" and not fast:
        raise UserError(f"--bf16 on: this {device.type} is not faster in bfloat16; leave it out")
    return asked == "on" or (asked == "auto" and frozen and fast)
