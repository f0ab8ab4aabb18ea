"""Scores of a network on a part of the data."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from poutyne import Model
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multilabel_confusion_matrix,
)

from core.errors import UserError, brief
from core.files import read_json, replacing
from core.processes import gather
from core.progress import progress_bar
from data.csv_dataset import SEPARATOR
from data.splits import classes_of, file_names
from Project import Run

# What "better" means, once for all: this metric cuts the learning rate, keeps the best weights and stops the training.
# The best accuracy is noise on a small validation set, and the loss also counts how confident each answer is.
MONITOR, MODE = "val_loss", "min"

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

    @property
    def multilabel(self) -> bool:
        """Whether an image can have several classes."""
        return self.labels.ndim == 2

    @property
    def claims(self) -> tuple[np.ndarray, np.ndarray]:
        """How probable each answer was said to be, and whether it was right: (N,) each.

        Where an image can have several classes: how probable each class was, and whether it was there, (N × C,).
        """
        if self.multilabel:
            return self.probabilities.ravel(), self.labels.ravel() == 1
        return self.probabilities[np.arange(len(self.labels)), self.predicted], self.labels == self.predicted

    @property
    def wrong(self) -> np.ndarray:
        """(N,) of bool: images with a mistake."""
        return (self.labels != self.predicted).reshape(len(self.labels), -1).any(axis=1)

    @property
    def sureness_of_mistake(self) -> np.ndarray:
        """(N,): how probable the most probable mistake of each image was said to be; -1 where there is none."""
        if not self.multilabel:
            return np.where(self.wrong, self.claims[0], -1.0)
        said = np.where(self.predicted == 1, self.probabilities, 1 - self.probabilities)
        return np.where(self.labels != self.predicted, said, -1.0).max(axis=1)


def predict(model: Model, loader: DataLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, (N, C) of float32, and labels of all that a loader gives, in all processes, on the CPU."""
    batches = progress_bar("scoring", loader, unit="batches")
    logits, labels = model.predict_generator(
        batches, has_ground_truth=True, return_ground_truth=True, verbose=False, convert_to_numpy=False
    )
    return gather(torch.as_tensor(logits).float().cpu()), gather(torch.as_tensor(labels).cpu())


def score(
    logits: torch.Tensor,
    labels: torch.Tensor,
    loss: Loss,
    thresholds: dict[str, float] | None = None,
    temperature: float = 1.0,
) -> Scores:
    """Scores what a network has predicted.

    Args:
        logits: (N, C) of float.
        labels: (N,) or (N, C) of int64.
        loss: takes both.
        thresholds: by class, where an image can have several: it has those whose probability reaches theirs.
        temperature: logits are divided by it before they become probabilities.
    """
    metrics = {"loss": loss(logits, labels).item()}
    probabilities = (logits / temperature).softmax(dim=1) if thresholds is None else logits.sigmoid()
    predicted = probabilities.argmax(dim=1)
    if thresholds is not None:
        predicted = (probabilities >= torch.tensor(list(thresholds.values()))).long()
    return count(probabilities, labels, predicted, metrics)


def count(
    probabilities: torch.Tensor, labels: torch.Tensor, predicted: torch.Tensor, metrics: dict[str, float]
) -> Scores:
    """Adds to some metrics those that are counted over predictions."""
    n_classes = probabilities.shape[1]
    if labels.ndim == 1:
        confusion = multiclass_confusion_matrix(predicted, labels, n_classes).numpy()
    else:
        confusion = multilabel_confusion_matrix(predicted, labels, n_classes).numpy()
        metrics["exact"] = (predicted == labels).all(dim=1).sum().item() / len(labels)
    hits, false, missed = tally(confusion)
    occur = hits + false + missed > 0  # the others have no F1
    f1 = (2 * hits[occur] / (2 * hits + false + missed)[occur]).mean() if occur.any() else 0.0
    metrics |= {"acc": (predicted == labels).sum().item() / labels.numel(), "f1": float(f1)}
    return Scores(metrics, labels.numpy(), predicted.numpy(), probabilities.numpy(), confusion)


def tally(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each class, (C,): how many images were rightly said to have it, how many wrongly, and how many were missed.

    Args:
        confusion: see `Scores`.
    """
    if confusion.ndim == 3:
        return confusion[:, 1, 1], confusion[:, 0, 1], confusion[:, 1, 0]
    hits = np.diag(confusion)
    return hits, confusion.sum(axis=0) - hits, confusion.sum(axis=1) - hits


def best_thresholds(logits: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]) -> dict[str, float]:
    """For each class the probability from which on it is said to be in an image: the one with the best F1.

    One half is not best for that, least of all where a class is rare (Lipton, Elkan and Naryanaswamy, "Optimal
    Thresholding of Classifiers to Maximize F1 Measure", ECML 2014).

    Args:
        logits: (N, C) of float, of the validation set.
        labels: (N, C) of 0 and 1; a class that is not in it keeps one half.
        classes: names of the classes.
    """
    thresholds = {}
    for name, p, truth in zip(classes, logits.sigmoid().T, labels.T, strict=True):
        order = p.argsort(descending=True)
        hits = truth[order].cumsum(dim=0)
        f1 = 2 * hits / (torch.arange(1, len(p) + 1) + truth.sum())
        f1[:-1][p[order][1:] == p[order][:-1]] = -1  # a threshold cannot come between equals
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


def read_scores(run: Run) -> Scores:
    """The scores of a run's test set again, from predictions.csv.

    Raises:
        UserError: there is no such file, or it does not fit the run.
    """
    classes = read_json(run.classes)
    try:
        with open(run.predictions, newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
        where = {name: i for i, name in enumerate(classes)}
        probabilities = torch.tensor([[float(row[f"p_{name}"]) for name in classes] for row in rows])
        labels, predicted = (
            torch.tensor([[int(name in row[column].split(SEPARATOR)) for name in classes] for row in rows])
            if run.thresholds.exists()
            else torch.tensor([where[row[column]] for row in rows])
            for column in ("true", "predicted")
        )
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{run.predictions} cannot be read ({brief(error)}); main.py --resume ends a run") from error
    return count(probabilities, labels, predicted, {})


def read_log(run: Run) -> dict[str, list[float]]:
    """log.csv as columns.

    Raises:
        UserError: it is missing or holds no epoch.
    """
    if not run.log.is_file():
        raise UserError(f"{run.folder} holds no log.csv")
    with open(run.log, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]  # a kill may have torn the last one
    if not rows:
        raise UserError(f"{run.log} holds no epoch")
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def best_epoch(log: dict[str, list[float]]) -> int:
    """The epoch whose weights are in best.pt: the first of the best."""
    values = log[MONITOR]
    return int(log["epoch"][values.index(max(values) if MODE == "max" else min(values))])
