"""Scores of a network on a part of the data, and what is written about them."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from poutyne import Model
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_f1_score

import plots
from callbacks import MODE, MONITOR
from data.splits import file_names
from Project import Run
from utils import UserError, replacing, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """How a network did on some pictures.

    Attributes:
        metrics: loss, acc and macro f1; acc and f1 from 0 to 1, counted over all predictions.
        labels: (N,) of int64, the true classes.
        probabilities: (N, n_classes) of float32.
        confusion: (n_classes, n_classes) of int64, true classes down, predicted across.
    """

    metrics: dict[str, float]
    labels: np.ndarray
    probabilities: np.ndarray
    confusion: np.ndarray

    def __str__(self) -> str:
        """One line for people."""
        right, n = self.confusion.trace(), self.confusion.sum()
        return f"accuracy {right / n:.4f} ({right} of {n}), macro F1 {self.metrics['f1']:.4f}"

    def named(self, part: str) -> dict[str, float]:
        """The metrics under the names "<part>_acc" and so on."""
        return {f"{part}_{name}": value for name, value in self.metrics.items()}


def score(model: Model, loader: DataLoader) -> Scores:
    """Runs the whole network once over a loader.

    Args:
        model: in any mode; is left in the one it had.
        loader: batches of (images, labels), in a fixed order.
    """
    logs, logits, labels = model.evaluate_generator(
        loader, return_pred=True, return_ground_truth=True, return_dict_format=True, verbose=False
    )
    logits, labels = torch.from_numpy(logits), torch.from_numpy(labels)
    predicted, n_classes = logits.argmax(dim=1), logits.shape[1]
    metrics = {
        "loss": float(logs["test_loss"]),
        "acc": (predicted == labels).sum().item() / len(labels),
        "f1": multiclass_f1_score(predicted, labels, n_classes, average="macro").item(),
    }
    confusion = multiclass_confusion_matrix(predicted, labels, n_classes)
    return Scores(metrics, labels.numpy(), logits.softmax(dim=1).numpy(), confusion.numpy())


def write_predictions(path: Path, scores: Scores, loader: DataLoader) -> None:
    """Writes a table of file, true class, predicted class and the probability of each class.

    Args:
        path: the CSV file.
        scores: of this loader.
        loader: knows the files and the classes.
    """
    classes, files = loader.dataset.classes, file_names(loader.dataset.dataset)
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(["file", "true", "predicted", *(f"p_{name}" for name in classes)])
        for name, label, row in zip(files, scores.labels, scores.probabilities, strict=True):
            writer.writerow([name, classes[label], classes[row.argmax()], *(f"{p:.6f}" for p in row)])


def write_report(
    run: Run, model: Model, val_dl: DataLoader, test_dl: DataLoader, trackers: Sequence[Any]
) -> dict[str, float]:
    """Scores the best weights and writes the final figures, the predictions and the pictures.

    Args:
        run: its folder gets metrics.json, predictions.csv, curves.png and confusion_matrix.png.
        model: with the best weights.
        val_dl, test_dl: the parts to score.
        trackers: get the figures too.

    Returns:
        What stands in metrics.json.
    """
    log = read_log(run)
    best = best_epoch(log)
    val, test = score(model, val_dl), score(model, test_dl)
    metrics = {"best_epoch": best, "epochs": len(log["epoch"]), **val.named("val"), **test.named("test")}
    classes = test_dl.dataset.classes
    write_json(run.metrics, metrics)
    write_predictions(run.predictions, test, test_dl)
    plots.curves(log, best, MONITOR).savefig(run / "curves.png")
    plots.confusion_matrix(test.confusion, classes).savefig(run / "confusion_matrix.png")
    for tracker in trackers:
        tracker.log_results(metrics, test.confusion, classes, run.best)
    logger.info("best epoch: %d of %d\nvalidation: %s\ntest:       %s", best, len(log["epoch"]), val, test)
    logger.info("All of it is in %s", run.folder)
    return metrics


def read_log(run: Run) -> dict[str, list[float]]:
    """log.csv as columns.

    Raises:
        UserError: it is missing or holds no epoch.
    """
    if not run.log.is_file():
        raise UserError(f"{run.folder} holds no log.csv")
    with open(run.log, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise UserError(f"{run.log} holds no epoch")
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def best_epoch(log: dict[str, list[float]]) -> int:
    """The epoch whose weights are in best.pt: the first of the best."""
    values = log[MONITOR]
    return int(log["epoch"][values.index(max(values) if MODE == "max" else min(values))])
