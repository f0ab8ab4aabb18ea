"""Whether pictures and network fit together, and whether the device can do what is asked of it."""

import copy
import shutil
from typing import Any

import torch
from torch.utils.data import DataLoader

from core.errors import UserError, out_of_memory


def check_batch(network: torch.nn.Module, loader: DataLoader, smallest: int = 2) -> None:
    """Sends two pictures through the network, so that what does not fit is known before the training starts.

    Args:
        network: stays as it is; a copy is tried on the CPU.
        loader: its classes give the number of outputs expected.
        smallest: pictures in the smallest batch of the training: BatchNorm cannot train on a single value.

    Raises:
        UserError: the pictures do not fit together or into the network; says the shapes.
    """
    images: Any = None
    try:
        images, _ = next(iter(loader))
        tried = images = images[:2]
        trial = copy.deepcopy(network).cpu()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = trial.eval()(images)
            tried = images[torch.arange(min(smallest, 2)) % len(images)]  # as many, even where val is smaller
            trial.train()(tried)
    except (RuntimeError, ValueError, AssertionError) as error:
        if out_of_memory(error) or (images is None and "stack" not in str(error)):
            raise
        found = "pictures of different sizes" if images is None else f"a batch of shape {tuple(tried.shape)}"
        reason = str(error).strip().splitlines()[-1]
        advice = "try another --image-size or --batch-size"
        raise UserError(f"{found} does not go through the network ({reason}); {advice}") from error
    expected = (len(images), len(loader.dataset.classes))
    if tuple(logits.shape) != expected:
        raise UserError(f"the network returns {tuple(logits.shape)} for {len(images)} pictures; expected is {expected}")


def check_compile(device: torch.device) -> None:
    """Sees that torch can compile for this device.

    Raises:
        UserError: a compiler is missing.
    """
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "cl"))):
        raise UserError("--compile needs a C++ compiler on a CPU: apt install g++, or leave it out")
