"""Scores of a network on a part of the data, and what is written about them."""

import csv
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from poutyne import Model
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multilabel_confusion_matrix,
    multilabel_f1_score,
)

import plots
from callbacks import MODE, MONITOR
from data.splits import classes_of, file_names
from data.table import SEPARATOR
from distributed import gather, rank
from models import summarize
from Project import Run
from utils import UserError, replacing, show_dl, write_json

logger = logging.getLogger(__name__)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Scores:
    """How a network did on some pictures.

    Attributes:
        metrics: loss, acc and macro f1; acc and f1 from 0 to 1, counted over all predictions. Where an image can have
            several classes, acc is the share of right answers among N × C, and exact that of images with no wrong one.
        labels: the true classes, (N,) of int64; or (N, C) of 0 and 1.
        predicted: likewise.
        probabilities: (N, C) of float32.
        confusion: (C, C) of int64, true classes down, predicted across; or for each class a matrix (C, 2, 2).
    """

    metrics: dict[str, float]
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    confusion: np.ndarray

    def __str__(self) -> str:
        """One line for people."""
        right, n = int((self.labels == self.predicted).sum()), self.labels.size
        exact = f", all of it right {self.metrics['exact']:.4f}" if "exact" in self.metrics else ""
        return f"accuracy {right / n:.4f} ({right} of {n}), macro F1 {self.metrics['f1']:.4f}{exact}"

    def named(self, part: str) -> dict[str, float]:
        """The metrics under the names "<part>_acc" and so on."""
        return {f"{part}_{name}": value for name, value in self.metrics.items()}


def score(model: Model, loss: Loss, loader: DataLoader, thresholds: dict[str, float] | None = None) -> Scores:
    """Runs the whole network once over a loader.

    Args:
        model: in any mode; is left in the one it had.
        loss: takes logits and labels.
        loader: batches of (images, labels), in a fixed order.
        thresholds: by class, where an image can have several: it has those whose probability reaches theirs.
    """
    logits, labels = predict(model, loader)
    n_classes = logits.shape[1]
    metrics = {"loss": loss(logits, labels).item()}
    if thresholds is None:
        probabilities = logits.softmax(dim=1)
        predicted = logits.argmax(dim=1)
        f1 = multiclass_f1_score(predicted, labels, n_classes, average="macro")
        confusion = multiclass_confusion_matrix(predicted, labels, n_classes)
    else:
        probabilities = logits.sigmoid()
        predicted = (probabilities >= torch.tensor(list(thresholds.values()))).long()
        f1 = multilabel_f1_score(predicted, labels, n_classes, average="macro")
        confusion = multilabel_confusion_matrix(predicted, labels, n_classes)
        metrics["exact"] = (predicted == labels).all(dim=1).sum().item() / len(labels)
    metrics |= {"acc": (predicted == labels).sum().item() / labels.numel(), "f1": f1.item()}
    return Scores(metrics, labels.numpy(), predicted.numpy(), probabilities.numpy(), confusion.numpy())


def predict(model: Model, loader: DataLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, (N, C) of float32, and labels of all that a loader gives, in all processes, on the CPU."""
    logits, labels = model.predict_generator(
        loader, has_ground_truth=True, return_ground_truth=True, verbose=False, convert_to_numpy=False
    )
    return gather(torch.as_tensor(logits).float().cpu()), gather(torch.as_tensor(labels).cpu())


def best_thresholds(model: Model, loader: DataLoader) -> dict[str, float]:
    """For each class the probability from which on it is said to be in an image: the one with the best F1.

    One half is not best for that, least of all where a class is rare (Lipton, Elkan and Naryanaswamy, "Optimal
    Thresholding of Classifiers to Maximize F1 Measure", ECML 2014).

    Args:
        model: with its best weights.
        loader: validation; a class that is not in it keeps one half.
    """
    logits, labels = predict(model, loader)
    thresholds = {}
    for name, p, truth in zip(loader.dataset.classes, logits.sigmoid().T, labels.T, strict=True):
        order = p.argsort(descending=True)
        hits = truth[order].cumsum(dim=0)
        f1 = 2 * hits / (torch.arange(1, len(p) + 1) + truth.sum())
        last = f1.argmax().item()  # the least probable image that is said to have the class
        following = p[order[last + 1]].item() if last + 1 < len(p) else 0.0
        thresholds[name] = (p[order[last]].item() + following) / 2 if truth.any() else 0.5
    return thresholds


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
        for name, *labels, row in zip(files, scores.labels, scores.predicted, scores.probabilities, strict=True):
            named = (SEPARATOR.join(classes[i] for i in classes_of(label.tolist())) for label in labels)
            writer.writerow([name, *named, *(f"{p:.6f}" for p in row)])


def write_start(run: Run, network: torch.nn.Module, train_dl: DataLoader, val_dl: DataLoader, image_size: int) -> None:
    """Shows what will be trained on what, before it is: train_batch.png, val_batch.png and model.txt.

    Args:
        run: its folder gets them.
        network: that will be trained.
        train_dl, val_dl: the loaders.
        image_size: side of the pictures, in pixels.
    """
    show_dl(train_dl, file=run / "train_batch.png")
    show_dl(val_dl, file=run / "val_batch.png")
    summary = summarize(network, image_size)
    (run / "model.txt").write_text(summary, encoding="utf-8")
    logger.info("%s", summary)


def write_report(
    run: Run, model: Model, loss: Loss, val_dl: DataLoader, test_dl: DataLoader, trackers: Sequence[Any]
) -> None:
    """Scores the best weights and writes the final figures, the predictions and the pictures.

    Args:
        run: its folder gets metrics.json, predictions.csv, curves.png and confusion_matrix.png, and where an image can
            have several classes thresholds.json.
        model: with the best weights.
        loss: takes logits and labels.
        val_dl, test_dl: the parts to score.
        trackers: get the figures too.
    """
    log = read_log(run)
    best = best_epoch(log)
    thresholds = best_thresholds(model, val_dl) if run.thresholds.exists() else None
    val, test = (score(model, loss, loader, thresholds) for loader in (val_dl, test_dl))
    if rank() > 0:
        return
    if thresholds:
        write_json(run.thresholds, thresholds)
    metrics = {"best_epoch": best, "epochs": len(log["epoch"]), **val.named("val"), **test.named("test")}
    classes = test_dl.dataset.classes
    write_json(run.metrics, metrics)
    write_predictions(run.predictions, test, test_dl)
    plots.curves(log, best, MONITOR).savefig(run / "curves.png")
    plots.confusion(test.confusion, classes).savefig(run / "confusion_matrix.png")
    for tracker in trackers:
        tracker.log_results(metrics, test.confusion, classes)
    logger.info("best epoch: %d of %d\nvalidation: %s\ntest:       %s", best, len(log["epoch"]), val, test)
    logger.info("All of it is in %s", run.folder)


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
