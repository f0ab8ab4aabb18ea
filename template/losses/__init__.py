"""Losses by name.

A custom loss is a function and a line in `LOSSES`. It takes logits (N, C), float, and labels, int64: (N,), or (N, C) if
an image can have several classes. To work with `--balance weights` it also takes `weight`, (C,), float.
"""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature

import torch
from torch import Tensor
from torch.nn import functional

from core.errors import UserError, format_error, lookup, out_of_memory
from core.task import Task

Loss = Callable[..., Tensor]


def bce(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the binary cross-entropy of each class; `weight` applies to images that have the class."""
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), pos_weight=weight)


LOSSES: dict[str, Loss] = {
    "cross_entropy": functional.cross_entropy,
    "label_smoothing": partial(functional.cross_entropy, label_smoothing=0.1),
    "bce": bce,
}


def get_loss(name: str, weights: Sequence[float] | None = None, device: torch.device | str = "cpu") -> Loss:
    """Return a loss as a function of logits and labels, with the weights of the classes if there are any.

    Raises:
        UserError: there is no such loss, or it takes no class weights.
    """
    loss = lookup(name, LOSSES, "loss")
    if weights is None:
        return loss
    if "weight" not in signature(loss).parameters:
        raise UserError(f"--balance weights: the loss {name!r} takes no class weights; try --balance sampler")
    weight = torch.as_tensor(weights, dtype=torch.float32, device=device)
    return partial(loss, weight=weight)


def check_loss(name: str, task: Task) -> None:
    """Raise a `UserError` if a loss fails on labels of this task."""
    loss = get_loss(name)
    logits = torch.zeros(2, len(task.classes))
    labels = torch.tensor([task.encode(task.classes)] * 2)
    try:
        loss(logits, labels)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if out_of_memory(error):
            raise
        reason = f"--loss {name} fails for {task.kind} classification ({format_error(error)})"
        raise UserError(f"{reason}; try --loss {task.default_loss}") from error
