"""Scores of a network on a part of the data."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from poutyne import Model
from torch.utils.data import DataLoader
from torchmetrics.functional import confusion_matrix

from core.errors import UserError, format_error
from core.files import atomic_write
from core.processes import gather
from core.progress import progress_bar
from core.task import Task, load_task
from data.splits import get_file_names
from Project import Run

# What "better" means, once for all: this metric cuts the learning rate, keeps the best weights and stops the training.
# The best accuracy is noise on a small validation set, and the loss also counts how confident each answer is.
MONITOR, MODE = "val_loss", "min"

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Scores:
    """How a network did on some pictures.

    Attributes:
        task: what was asked.
        metrics: loss, acc and macro f1; acc and f1 from 0 to 1, counted over all predictions. Where an image can have
            several classes, acc is the share of right answers among N × C, and exact_match that of
            images with no wrong one.
        labels: the true classes, (N,) of int64; or (N, C) of 0 and 1.
        predicted: likewise.
        probabilities: (N, C) of float32.
        confusion: (C, C) of int64, true classes down, predicted across; or for each class a matrix (C, 2, 2).
    """

    task: Task
    metrics: dict[str, float]
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    confusion: np.ndarray

    def __str__(self) -> str:
        """One line for people."""
        right, n = int((self.labels == self.predicted).sum()), self.labels.size
        exact = f", all of it right {self.metrics['exact_match']:.4f}" if "exact_match" in self.metrics else ""
        return f"accuracy {right / n:.4f} ({right} of {n}), macro F1 {self.metrics['f1']:.4f}{exact}"

    def named(self, part: str) -> dict[str, float]:
        """The metrics under the names "<part>_acc" and so on."""
        return {f"{part}_{name}": value for name, value in self.metrics.items()}

    @property
    def confidence(self) -> np.ndarray:
        """The probability of each answer, in the shape of `labels`."""
        return self.task.confidence(self.probabilities, self.predicted)

    @property
    def claims(self) -> tuple[np.ndarray, np.ndarray]:
        """The probability of each answer and whether it was right: (N,) each; for several classes, (N × C,)."""
        return self.confidence.ravel(), (self.labels == self.predicted).ravel()

    @property
    def wrong(self) -> np.ndarray:
        """(N,) of bool: images with a mistake."""
        return (self.labels != self.predicted).reshape(len(self.labels), -1).any(axis=1)

    @property
    def mistake_confidence(self) -> np.ndarray:
        """(N,): the probability of the most confident mistake of each image; -1 where there is none."""
        mistakes = np.where(self.labels != self.predicted, self.confidence, -1.0)
        return mistakes.reshape(len(mistakes), -1).max(axis=1)


def predict(model: Model, loader: DataLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, (N, C) of float32, and labels of all that a loader gives, in all processes, on the CPU."""
    batches = progress_bar("scoring", loader, unit="batches")
    logits, labels = model.predict_generator(
        batches, has_ground_truth=True, return_ground_truth=True, verbose=False, convert_to_numpy=False
    )
    return gather(torch.as_tensor(logits).float().cpu()), gather(torch.as_tensor(labels).cpu())


def score(task: Task, logits: torch.Tensor, labels: torch.Tensor, loss: Loss, temperature: float = 1.0) -> Scores:
    """Score what a network has predicted.

    Args:
        task: makes predictions of logits.
        logits: (N, C) of float.
        labels: (N,) or (N, C) of int64.
        loss: takes both.
        temperature: logits are divided by it before they become probabilities.
    """
    probabilities = task.activate(logits, temperature)
    return count(task, probabilities, labels, task.decode(probabilities), {"loss": loss(logits, labels).item()})


def count(
    task: Task,
    probabilities: torch.Tensor,
    labels: torch.Tensor,
    predicted: torch.Tensor,
    metrics: Mapping[str, float],
) -> Scores:
    """Add to some metrics those that are counted over predictions."""
    n = len(task.classes)
    confusion = confusion_matrix(predicted, labels, task=task.kind, num_classes=n, num_labels=n).numpy()
    hits, false, missed = tp_fp_fn(confusion)
    occur = hits + false + missed > 0  # the others have no F1
    f1 = (2 * hits[occur] / (2 * hits + false + missed)[occur]).mean() if occur.any() else 0.0
    metrics = {**metrics, **task.accuracies(labels.numpy(), predicted.numpy()), "f1": float(f1)}
    return Scores(task, metrics, labels.numpy(), predicted.numpy(), probabilities.numpy(), confusion)


def tp_fp_fn(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each class, (C,): how many images were rightly said to have it, how many wrongly, and how many were missed.

    Args:
        confusion: see `Scores`.
    """
    if confusion.ndim == 3:
        return confusion[:, 1, 1], confusion[:, 0, 1], confusion[:, 1, 0]
    hits = np.diag(confusion)
    return hits, confusion.sum(axis=0) - hits, confusion.sum(axis=1) - hits


def write_predictions(path: Path, scores: Scores, loader: DataLoader) -> None:
    """Writes a table of file, true class, predicted class and the probability of each class.

    Args:
        path: the CSV file.
        scores: of this loader.
        loader: knows the files.
    """
    task, files = scores.task, get_file_names(loader.dataset.dataset)
    with atomic_write(path) as file:
        writer = csv.writer(file)
        writer.writerow(["file", "true", "predicted", *(f"p_{name}" for name in task.classes)])
        for name, *labels, row in zip(files, scores.labels, scores.predicted, scores.probabilities, strict=True):
            named = [task.describe(label.tolist()) for label in labels]
            writer.writerow([name, *named, *(f"{p:.6f}" for p in row)])


def load_scores(run: Run) -> Scores:
    """The scores of a run's test set again, from predictions.csv.

    Raises:
        UserError: there is no such file, or it does not fit the run.
    """
    task = load_task(run)
    try:
        with open(run.predictions, newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
        probabilities = torch.tensor([[float(row[f"p_{name}"]) for name in task.classes] for row in rows])
        labels, predicted = (
            torch.tensor([task.parse(row[column]) for row in rows]) for column in ("true", "predicted")
        )
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{run.predictions} cannot be read ({format_error(error)}); main.py --resume ends a run"
        ) from error
    return count(task, probabilities, labels, predicted, {})


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
