"""Metrics by name, for the log.

A new one is a function and a line in `METRICS`: it takes the number of classes and whether an image can have several of
them, and returns a torchmetrics metric, which Poutyne updates with logits (N, C) and labels, (N,) or (N, C), and reads
once an epoch. All of these are from 0 to 1.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torchmetrics.classification as tm

from core.errors import UserError, lookup


def by_name(name: str, n_classes: int, multilabel: bool, **settings: object) -> tm.MulticlassAccuracy:
    """Torchmetrics' metric of this name, for one class an image or for several."""
    return getattr(tm, f"{'Multilabel' if multilabel else 'Multiclass'}{name}")(n_classes, **settings)


def top5(n_classes: int, multilabel: bool = False) -> tm.MulticlassAccuracy:
    """How often the true class is among the five most probable ones.

    Raises:
        UserError: there are not more than five, or an image can have several.
    """
    if multilabel or n_classes <= 5:
        raise UserError("--metrics top5 needs more than 5 classes, of which an image has one")
    return tm.MulticlassAccuracy(n_classes, top_k=5, average="micro")


METRICS: dict[str, Callable[[int, bool], tm.MulticlassAccuracy]] = {
    "f1": partial(by_name, "F1Score", average="macro"),
    "f1_weighted": partial(by_name, "F1Score", average="weighted"),
    "precision": partial(by_name, "Precision", average="macro"),
    "precision_weighted": partial(by_name, "Precision", average="weighted"),
    "recall": partial(by_name, "Recall", average="macro"),
    "recall_weighted": partial(by_name, "Recall", average="weighted"),
    "auc": partial(by_name, "AUROC"),
    "top5": top5,
}


def get_metrics(names: Sequence[str], n_classes: int, multilabel: bool) -> dict[str, list]:
    """Return what Poutyne's Model takes: accuracy, and the metrics of these names.

    Args:
        names: keys of `METRICS`.
        n_classes: number of classes.
        multilabel: whether an image can have several.

    Raises:
        UserError: there is no such metric, or it is not made for such data.
    """
    chosen = [(name, lookup(name, METRICS, "metric")(n_classes, multilabel)) for name in names]
    return {"batch_metrics": [accuracy(multilabel)], "epoch_metrics": chosen}


def accuracy(multilabel: bool) -> str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What Poutyne calls `acc`, in per cent; where an image can have several classes, over all yeses and noes."""
    return acc if multilabel else "acc"


def acc(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How many of the N × C answers, yes at a probability of one half, are right, in per cent."""
    return ((logits > 0) == labels.bool()).float().mean() * 100
