"""Losses by name.

A new one is a line in `LOSSES`: it takes logits (N, C), float, and labels, (N,) or where an image can have several
classes (N, C), int64. One that takes a `weight` for each class, (C,) of float, works with `--balance weights` too.
"""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature

import torch
from torch.nn import functional

from core.errors import UserError, format_error, lookup, out_of_memory
from core.task import Task
from losses.focal import focal


def bce(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Binary cross-entropy for images that can have several classes: each class is a question of its own.

    Args:
        logits: (N, C) of float.
        labels: (N, C), 1 for each class that is in the image.
        weight: (C,) of float; how much the presence of a class counts beside its absence.
    """
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weight)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "label_smoothing": partial(functional.cross_entropy, label_smoothing=0.1),
    "focal": focal,
    "bce": bce,
}


def get_loss(
    name: str, weights: Sequence[float] | None = None, device: torch.device | str = "cpu"
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss of this name, as a function of logits and labels.

    Args:
        name: a key of `LOSSES`.
        weights: for each class how much it counts.
        device: where it will be computed.

    Raises:
        UserError: there is no such loss, or it takes no weights.
    """
    loss = lookup(name, LOSSES, "loss")
    if weights is None:
        return loss
    if "weight" not in signature(loss).parameters:
        raise UserError(f"--balance weights: the loss {name!r} takes no weight for each class; try --balance sampler")
    return partial(loss, weight=torch.as_tensor(weights, dtype=torch.float32, device=device))


def check_loss(name: str, task: Task) -> None:
    """Try a loss on labels such as the data has.

    Args:
        name: a key of `LOSSES`.
        task: has the classes.

    Raises:
        UserError: there is no such loss, or it is not made for such labels.
    """
    loss = get_loss(name)
    try:
        loss(torch.zeros(2, len(task.classes)), task.empty_labels(2))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if out_of_memory(error):
            raise
        raise UserError(
            f"--loss {name} is not for images that have {task} ({format_error(error)}); try --loss {task.default_loss}"
        ) from error
