"""Metrics by name, for the log.

A new one is a function and a line in `METRICS`: it takes the number of classes and whether an image can have several of
them, and returns a torchmetrics metric, which Poutyne updates with logits (N, C) and labels, (N,) or (N, C), and reads
once an epoch.
"""

from collections.abc import Callable

import torch
import torchmetrics
from torchmetrics.classification import MulticlassF1Score, MultilabelF1Score


def f1(n_classes: int, multilabel: bool = False) -> torchmetrics.Metric:
    """Macro F1: the harmonic mean of precision and recall, averaged over the classes; 0 to 1."""
    return (MultilabelF1Score if multilabel else MulticlassF1Score)(n_classes, average="macro")


METRICS: dict[str, Callable[[int, bool], torchmetrics.Metric]] = {
    "f1": f1,
}


def accuracy(multilabel: bool) -> str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What Poutyne calls `acc`, in per cent; where an image can have several classes, over all yeses and noes."""
    return acc if multilabel else "acc"


def acc(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How many of the N × C answers, yes at a probability of one half, are right, in per cent."""
    return ((logits > 0) == labels.bool()).float().mean() * 100
