"""Metrics by name, for the log.

A new one is a function and a line in `METRICS`: it takes the number of classes and whether an image can have several of
them, and returns a torchmetrics metric, which Poutyne updates with logits (N, C) and labels, (N,) or (N, C), and reads
once an epoch. All of these are from 0 to 1.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torchmetrics.classification as tm
from torchmetrics.wrappers import LambdaInputTransformer

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
    """Return what Poutyne's Model takes: accuracy, and the metrics of these names. Soft labels are hardened for them.

    Args:
        names: keys of `METRICS`.
        n_classes: number of classes.
        multilabel: whether an image can have several.

    Raises:
        UserError: there is no such metric, or it is not made for such data.
    """
    harden = partial(hard_labels, multilabel=multilabel)
    chosen = []
    for name in names:
        metric = lookup(name, METRICS, "metric")(n_classes, multilabel)
        chosen.append((name, LambdaInputTransformer(metric, transform_target=harden)))
    return {"batch_metrics": [accuracy(multilabel)], "epoch_metrics": chosen}


def hard_labels(labels: torch.Tensor, multilabel: bool) -> torch.Tensor:
    """Return the class with the largest share of each image, or all classes with more than half of it.

    Args:
        labels: soft ones, (N, C) of float, as of mixed images; any of int64 are returned as they are.
        multilabel: whether an image can have several classes.

    Returns:
        (N,), or (N, C) of 0 and 1; int64.
    """
    if not labels.is_floating_point():
        return labels
    return (labels > 0.5).long() if multilabel else labels.argmax(dim=1)


def accuracy(multilabel: bool) -> tuple[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Return the accuracy and its name in the log, in per cent; of all N × C answers if an image can have several."""

    def acc(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        answers = logits > 0 if multilabel else logits.argmax(dim=1)
        return (answers == hard_labels(labels, multilabel)).float().mean() * 100

    return "acc", acc
