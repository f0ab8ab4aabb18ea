"""Predictions of a network and their scores."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from poutyne import Model
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional import confusion_matrix

from core.errors import UserError, format_error
from core.processes import gather
from core.progress import progress_bar
from core.task import Task, load_task
from data.splits import get_file_names
from Project import Run

# The metric that lowers the learning rate, selects the best weights and stops the training, defined once.
# The best accuracy is noise on a small validation set; the loss also measures how confident each answer is.
MONITOR, MODE = "val_loss", "min"


@dataclass(frozen=True)
class Scores:
    """Predictions for a set of images, and their metrics."""

    task: Task
    labels: np.ndarray  # (N,) of int64; multilabel: (N, C) of 0 and 1
    predicted: np.ndarray  # in the shape of `labels`
    probabilities: np.ndarray  # (N, C) of float32
    loss: float | None = None  # mean over the images, if known

    def __str__(self) -> str:
        correct = self.correct
        metrics = self.metrics
        text = (
            f"accuracy {metrics['acc']:.4f} ({correct.sum()} of {correct.size}), macro F1 {metrics['f1']:.4f}"
        )
        if self.task.multilabel:
            text += f", exact match {metrics['exact_match']:.4f}"
        return text

    @property
    def confidence(self) -> np.ndarray:
        """Probability of each answer, in the shape of `labels`."""
        return self.task.confidence(self.probabilities, self.predicted)

    @property
    def correct(self) -> np.ndarray:
        """Whether each answer is correct, in the shape of `labels`."""
        return self.labels == self.predicted

    @cached_property
    def confusion(self) -> np.ndarray:
        """Confusion matrix (C, C), true classes by predicted classes; multilabel: (C, 2, 2)."""
        predicted = torch.from_numpy(self.predicted)
        labels = torch.from_numpy(self.labels)
        n = len(self.task.classes)
        return confusion_matrix(predicted, labels, self.task.kind, num_classes=n, num_labels=n).numpy()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Loss, accuracy and macro F1; multilabel: also the share of images without a mistake."""
        metrics = {}
        if self.loss is not None:
            metrics["loss"] = self.loss
        metrics["acc"] = float(self.correct.mean())
        if self.task.multilabel:
            metrics["exact_match"] = float(self.correct.all(axis=1).mean())
        tp, fp, fn = tp_fp_fn(self.confusion)
        present = tp + fp + fn > 0  # the other classes have no F1
        f1 = 2 * tp[present] / (2 * tp + fp + fn)[present]
        metrics["f1"] = float(f1.mean())
        return metrics

    def named(self, part: str) -> dict[str, float]:
        """Return the metrics under the names "<part>_acc" and so on."""
        return {f"{part}_{name}": value for name, value in self.metrics.items()}


def tp_fp_fn(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the true positives, false positives and false negatives of each class, (C,) each."""
    if confusion.ndim == 3:
        return confusion[:, 1, 1], confusion[:, 0, 1], confusion[:, 1, 0]
    tp = np.diag(confusion)
    return tp, confusion.sum(axis=0) - tp, confusion.sum(axis=1) - tp


def predict(model: Model, loader: DataLoader) -> tuple[Tensor, Tensor]:
    """Return logits, (N, C) of float32, and labels of all images of a loader, from all processes, on the CPU."""
    batches = progress_bar("scoring", loader, unit="batches")
    logits, labels = model.predict_generator(
        batches, has_ground_truth=True, return_ground_truth=True, verbose=False, convert_to_numpy=False
    )
    logits = torch.as_tensor(logits).float().cpu()
    labels = torch.as_tensor(labels).cpu()
    return gather(logits), gather(labels)


def score(task: Task, logits: Tensor, labels: Tensor, loss: Callable, temperature: float = 1.0) -> Scores:
    """Score logits (N, C) and labels, (N,) or (N, C); `loss` is a function of the two."""
    probabilities = task.activate(logits, temperature)
    predicted = task.decode(probabilities)
    mean_loss = loss(logits, labels).item()
    return Scores(task, labels.numpy(), predicted.numpy(), probabilities.numpy(), mean_loss)


def predictions_table(scores: Scores, dataset: Dataset) -> pd.DataFrame:
    """Return file, true class, predicted class and the probability of each class, a row per image."""
    task = scores.task
    table = {
        "file": get_file_names(dataset),
        "true": [task.describe(label) for label in scores.labels.tolist()],
        "predicted": [task.describe(label) for label in scores.predicted.tolist()],
    }
    columns = [f"p_{name}" for name in task.classes]
    probabilities = pd.DataFrame(scores.probabilities, columns=columns)
    # not str: a file name need not be valid UTF-8
    return pd.DataFrame(table, dtype=object).join(probabilities)


def load_scores(run: Run) -> Scores:
    """Load the scores of a run's test set from predictions.csv.

    Raises:
        UserError: there is no such file, or it does not belong to the run.
    """
    task = load_task(run)
    try:
        # Classes may be called NA, null or 001.
        table = pd.read_csv(
            run.predictions, dtype=object, keep_default_na=False, encoding_errors="surrogateescape"
        )
        labels = np.array([task.parse(text) for text in table["true"]])
        predicted = np.array([task.parse(text) for text in table["predicted"]])
        probabilities = table[[f"p_{name}" for name in task.classes]].to_numpy(np.float32)
    except (OSError, KeyError, ValueError) as error:
        message = (
            f"{run.predictions} cannot be read ({format_error(error)}); finish the run with main.py --resume"
        )
        raise UserError(message) from error
    return Scores(task, labels, predicted, probabilities)


def read_log(run: Run) -> pd.DataFrame:
    """Read log.csv, a row per epoch; raise a `UserError` if it is missing or empty."""
    try:
        log = pd.read_csv(run.log)
    except (OSError, ValueError) as error:
        raise UserError(f"{run.log} cannot be read ({format_error(error)})") from error
    complete = log.iloc[:, -1].notna()  # a killed run can leave an incomplete last row
    if not complete.any():
        raise UserError(f"{run.log} holds no epoch; finish the run with main.py --resume")
    return log[complete].astype(float)


def best_epoch(log: pd.DataFrame) -> int:
    """Return the epoch whose weights are in best.pt: the first of the best."""
    values = log[MONITOR] if MODE == "min" else -log[MONITOR]
    return int(log["epoch"][values.idxmin()])
