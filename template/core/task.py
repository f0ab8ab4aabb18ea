"""The task: one class an image, or any number of them. Whatever differs between the two is here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from core.files import read_json, write_json
from Project import Run

Label = int | tuple[int, ...]  # a class; with several classes an image, 0 or 1 for each class
SEPARATOR = "|"  # between the names of several classes


@dataclass(frozen=True)
class Task:
    """Classification with one class an image, or with any number of them (multilabel).

    Attributes:
        classes: names by label.
        multilabel: whether an image can have any number of classes.
        thresholds: probability from which on an image has a class, by class (default: 0.5); multilabel only.
    """

    classes: list[str]
    multilabel: bool = False
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "several classes" if self.multilabel else "one class"

    @property
    def kind(self) -> str:
        """Return the task's name in torchmetrics."""
        return "multilabel" if self.multilabel else "multiclass"

    @property
    def default_loss(self) -> str:
        return "bce" if self.multilabel else "cross_entropy"

    @property
    def files(self) -> dict[str, Any]:
        """Return the contents of the JSON files that describe the task in a run folder, by file name."""
        if not self.multilabel:
            return {"classes.json": self.classes}
        thresholds = {name: self.thresholds.get(name, 0.5) for name in self.classes}
        return {"classes.json": self.classes, "thresholds.json": thresholds}

    def activate(self, logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Compute probabilities (…, n_classes) from logits of the same shape."""
        logits = logits / temperature
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=-1)

    def decode(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Predict labels from probabilities (…, n_classes): classes (…), or 0 and 1 for each class (…, n_classes)."""
        if not self.multilabel:
            return probabilities.argmax(dim=-1)
        thresholds = list(self.files["thresholds.json"].values())
        return (probabilities >= probabilities.new_tensor(thresholds)).long()

    def harden(self, labels: torch.Tensor) -> torch.Tensor:
        """Turn soft labels (N, n_classes) of float into hard ones of int64; return hard ones as they are."""
        if not labels.is_floating_point():
            return labels
        return (labels > 0.5).long() if self.multilabel else labels.argmax(dim=1)

    def encode(self, names: Sequence[str]) -> Label:
        """Return the label for the names of an image's classes; ValueError if its only class is unknown."""
        if self.multilabel:
            return tuple(int(name in names) for name in self.classes)
        return self.classes.index(names[0])

    def parse(self, text: str) -> Label:
        """Return the label for a text by `describe`."""
        return self.encode(split_names(text) if self.multilabel else [text])

    def names(self, label: Label | list[int]) -> list[str]:
        """Return the names of the classes of a label."""
        return [self.classes[i] for i in classes_of(label)]

    def describe(self, label: Label | list[int]) -> str:
        """Return the names of the classes of a label as one text."""
        return SEPARATOR.join(self.names(label))

    def empty_labels(self, n: int) -> torch.Tensor:
        """Return labels of n images, all 0: (n,) or (n, n_classes) of int64."""
        return torch.zeros((n, len(self.classes)) if self.multilabel else n, dtype=torch.int64)

    def accuracies(self, labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Compute `acc`; for multilabel also `exact_match`, the fraction of images without a wrong class."""
        correct = labels == predicted
        if self.multilabel:
            return {"exact_match": float(correct.all(axis=1).mean()), "acc": float(correct.mean())}
        return {"acc": float(correct.mean())}

    def confidence(self, probabilities: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Return the probability of each prediction: (N,), or (N, n_classes) for each 0 and each 1."""
        if self.multilabel:
            return np.where(predicted == 1, probabilities, 1 - probabilities)
        return probabilities[np.arange(len(predicted)), predicted]

    def class_weights(self, counts: np.ndarray, n_images: int) -> np.ndarray:
        """Compute weights (n_classes,) for the loss, with which all classes contribute equally.

        Args:
            counts: (n_classes,) images of each class, at least 1.
            n_images: total number of images.
        """
        if self.multilabel:
            return np.maximum(n_images - counts, 1) / counts
        return n_images / (len(counts) * counts)


def classes_of(label: Label | list[int]) -> list[int]:
    """Return the classes of a label, as numbers."""
    if isinstance(label, int):
        return [label]
    return [i for i, present in enumerate(label) if present]


def split_names(text: str) -> list[str]:
    """Split a text at each `|` into names of classes."""
    return [name.strip() for name in text.split(SEPARATOR) if name.strip()]


def load_task(run: Run) -> Task:
    """Return the task of a run: multilabel if its folder holds thresholds.json.

    Raises:
        UserError: a file cannot be read.
    """
    if run.thresholds.exists():
        return Task(read_json(run.classes), True, read_json(run.thresholds))
    return Task(read_json(run.classes))


def reset_thresholds(run: Run) -> None:
    """Set the thresholds of a run, if any, back to 0.5: they were chosen for other weights."""
    if run.thresholds.exists():
        write_json(run.thresholds, dict.fromkeys(read_json(run.thresholds), 0.5))
