"""Metrics by name, for the log.

A custom metric is a function and a line in `METRICS`. It takes the task and returns a torchmetrics metric, which is
updated with logits (N, C) and labels, (N,) or (N, C), and computed once per epoch over the images of all processes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torchmetrics import AUROC, Accuracy, F1Score, Metric, Precision, Recall
from torchmetrics.wrappers import LambdaInputTransformer

from core.errors import UserError, lookup
from core.task import Task


def of_probabilities(metric: Callable[..., Metric], task: Task, **settings: Any) -> Metric:
    """Build a metric of torchmetrics that is updated with probabilities and hard labels.

    torchmetrics takes logits that happen to lie between 0 and 1 for probabilities, and MixUp makes labels soft.
    """
    n = len(task.classes)
    built = metric(task=task.kind, num_classes=n, num_labels=n, **settings)
    return LambdaInputTransformer(built, task.activate, task.harden)


def top5(task: Task) -> Metric:
    """Build the accuracy of the five most probable classes."""
    if task.multilabel or len(task.classes) <= 5:
        raise UserError("--metrics top5 needs more than 5 classes, of which an image has one")
    return accuracy(task, top_k=5)


accuracy = partial(of_probabilities, Accuracy, average="micro")  # in every log, as `acc`

METRICS: dict[str, Callable[[Task], Metric]] = {
    "f1": partial(of_probabilities, F1Score, average="macro"),
    "f1_weighted": partial(of_probabilities, F1Score, average="weighted"),
    "precision": partial(of_probabilities, Precision, average="macro"),
    "precision_weighted": partial(of_probabilities, Precision, average="weighted"),
    "recall": partial(of_probabilities, Recall, average="macro"),
    "recall_weighted": partial(of_probabilities, Recall, average="weighted"),
    "auc": partial(of_probabilities, AUROC),
    "top5": top5,
}


def get_metrics(names: Sequence[str], task: Task) -> list[tuple[str, Metric]]:
    """Return accuracy and the metrics of these names, as Poutyne takes them.

    Raises:
        UserError: there is no such metric, or it does not support the task.
    """
    metrics = [("acc", accuracy(task))]
    for name in names:
        metric = lookup(name, METRICS, "metric")(task)
        if not isinstance(metric, LambdaInputTransformer):  # a custom metric
            metric = LambdaInputTransformer(metric, transform_target=task.harden)
        metrics.append((name, metric))
    return metrics
