"""Metrics by name, for the log.

A new one is a function and a line in `METRICS`: it takes the task and returns a torchmetrics metric, which Poutyne
updates with logits (N, C) and labels, (N,) or (N, C), and reads once an epoch. torchmetrics adds up the counts of all
processes. All of these are from 0 to 1.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torchmetrics
from torchmetrics.wrappers import LambdaInputTransformer

from core.errors import UserError, lookup
from core.task import Task


def of_probabilities(metric: Callable[..., torchmetrics.Metric], task: Task, **settings: object) -> torchmetrics.Metric:
    """Build a metric of torchmetrics for this task.

    It gets probabilities: of logits that happen to lie between 0 and 1 it would take a batch for probabilities. Soft
    labels, as of mixed images, become hard ones.

    Args:
        metric: a class of torchmetrics that takes `task`.
        task: has the classes.
        settings: what else the class takes.
    """
    n = len(task.classes)
    built = metric(task=task.kind, num_classes=n, num_labels=n, **settings)
    return LambdaInputTransformer(built, task.activate, task.harden)


def top5(task: Task) -> torchmetrics.Metric:
    """Count how often the true class is among the five most probable ones.

    Raises:
        UserError: there are not more than five, or an image can have several.
    """
    if task.multilabel or len(task.classes) <= 5:
        raise UserError("--metrics top5 needs more than 5 classes, of which an image has one")
    return of_probabilities(torchmetrics.Accuracy, task, top_k=5, average="micro")


# In every log, as `acc`: right answers among all, where an image can have several classes among N × C.
accuracy = partial(of_probabilities, torchmetrics.Accuracy, average="micro")

METRICS: dict[str, Callable[[Task], torchmetrics.Metric]] = {
    "f1": partial(of_probabilities, torchmetrics.F1Score, average="macro"),
    "f1_weighted": partial(of_probabilities, torchmetrics.F1Score, average="weighted"),
    "precision": partial(of_probabilities, torchmetrics.Precision, average="macro"),
    "precision_weighted": partial(of_probabilities, torchmetrics.Precision, average="weighted"),
    "recall": partial(of_probabilities, torchmetrics.Recall, average="macro"),
    "recall_weighted": partial(of_probabilities, torchmetrics.Recall, average="weighted"),
    "auc": partial(of_probabilities, torchmetrics.AUROC),
    "top5": top5,
}


def get_metrics(names: Sequence[str], task: Task) -> list[tuple[str, torchmetrics.Metric]]:
    """Return what Poutyne computes in each epoch: accuracy, and the metrics of these names.

    Args:
        names: keys of `METRICS`.
        task: of the data.

    Raises:
        UserError: there is no such metric, or it is not made for such data.
    """
    chosen = [("acc", accuracy(task))]
    for name in names:
        metric = lookup(name, METRICS, "metric")(task)
        if not isinstance(metric, LambdaInputTransformer):  # a custom one
            metric = LambdaInputTransformer(metric, transform_target=task.harden)
        chosen.append((name, metric))
    return chosen
