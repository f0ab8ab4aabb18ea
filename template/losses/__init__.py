"""Losses by name.

A new one is a line in `LOSSES`: it takes logits (N, C), float, and labels, (N,) or where an image can have several
classes (N, C), int64. One that takes a `weight` for each class, (C,) of float, works with `--balance weights` too.
"""

from collections.abc import Callable

import torch
from torch.nn import functional


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
    "bce": bce,
}
