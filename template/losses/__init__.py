"""Losses by name. A new one is a line in `LOSSES`: it takes logits (N, C), float, and labels (N,), int64."""

from collections.abc import Callable

import torch
from torch import nn

LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cross_entropy": nn.functional.cross_entropy,
}
