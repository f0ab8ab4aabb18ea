"""Metrics by name, for the log.

A new one is a function and a line in `METRICS`: it takes the number of classes and returns a torchmetrics metric, which
Poutyne updates with logits (N, C) and labels (N,) and reads once an epoch.
"""

from collections.abc import Callable

import torchmetrics
from torchmetrics.classification import MulticlassF1Score


def f1(n_classes: int) -> torchmetrics.Metric:
    """Macro F1: the harmonic mean of precision and recall, averaged over the classes; 0 to 1."""
    return MulticlassF1Score(n_classes, average="macro")


METRICS: dict[str, Callable[[int], torchmetrics.Metric]] = {
    "f1": f1,
}
