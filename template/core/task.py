"""The task: one class an image, or any number of them. Whatever differs between the two is here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from core.files import read_json, write_json
from Project import Run

Label = int | Sequence[int]  # a class; with several classes an image, 0 or 1 for each class
SEPARATOR = "|"  # between the names of several classes


@dataclass(frozen=True)
class Task:
    """Classification with one class an image, or with any number of them (multilabel)."""

    classes: list[str]  # names by label
    multilabel: bool = False
    # lowest probability of a class; multilabel only
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Name of the task in torchmetrics."""
        return "multilabel" if self.multilabel else "multiclass"

    @property
    def default_loss(self) -> str:
        return "bce" if self.multilabel else "cross_entropy"

    @property
    def files(self) -> dict[str, Any]:
        """Contents of the JSON files that describe the task in a run folder, by file name."""
        if not self.multilabel:
            return {"classes.json": self.classes}
        thresholds = {name: self.thresholds.get(name, 0.5) for name in self.classes}
        return {"classes.json": self.classes, "thresholds.json": thresholds}

    def activate(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """Compute probabilities (…, n_classes) from logits of the same shape."""
        logits = logits / temperature
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=-1)

    def decode(self, probabilities: Tensor) -> Tensor:
        """Predict labels from probabilities (…, n_classes): classes (…), or 0 and 1 for each class (…, n_classes)."""
        if not self.multilabel:
            return probabilities.argmax(dim=-1)
        thresholds = [self.thresholds.get(name, 0.5) for name in self.classes]
        present = probabilities >= probabilities.new_tensor(thresholds)
        return present.long()

    def harden(self, labels: Tensor) -> Tensor:
        """Turn soft labels (N, n_classes) into hard ones; return hard ones as they are."""
        if not labels.is_floating_point():
            return labels
        return (labels > 0.5).long() if self.multilabel else labels.argmax(dim=1)

    def encode(self, names: list[str]) -> Label:
        """Return the label of an image from the names of its classes."""
        if self.multilabel:
            return tuple(int(name in names) for name in self.classes)
        return self.classes.index(names[0])

    def parse(self, text: str) -> Label:
        """Return the label that `describe` turns into this text."""
        names = split_names(text) if self.multilabel else [text]
        return self.encode(names)

    def names(self, label: Label) -> list[str]:
        """Return the names of the classes of a label."""
        return [self.classes[i] for i in classes_of(label)]

    def describe(self, label: Label) -> str:
        """Return the names of the classes of a label as one text."""
        return SEPARATOR.join(self.names(label))

    def confidence(self, probabilities: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Return the probability of each prediction: (N,), or (N, n_classes) for each 0 and each 1."""
        if self.multilabel:
            return np.where(predicted == 1, probabilities, 1 - probabilities)
        return probabilities[np.arange(len(predicted)), predicted]

    def class_weights(self, counts: np.ndarray, n_images: int) -> np.ndarray:
        """Compute weights of the classes for the loss, from the number of images of each, at least 1."""
        if self.multilabel:
            return np.maximum(n_images - counts, 1) / counts
        return n_images / (len(counts) * counts)


def classes_of(label: Label) -> list[int]:
    """Return the classes of a label, as numbers."""
    if isinstance(label, int):
        return [label]
    return [i for i, present in enumerate(label) if present]


def split_names(text: str) -> list[str]:
    """Split a text at each `|` into names of classes."""
    return [name.strip() for name in text.split(SEPARATOR) if name.strip()]


def load_task(run: Run) -> Task:
    """Return the task of a run: multilabel if its folder holds thresholds.json."""
    classes = read_json(run.classes)
    if run.thresholds.exists():
        return Task(classes, multilabel=True, thresholds=read_json(run.thresholds))
    return Task(classes)


def reset_thresholds(run: Run) -> None:
    """Set the thresholds of a run, if any, back to 0.5: they were chosen for other weights."""
    if run.thresholds.exists():
        write_json(run.thresholds, dict.fromkeys(read_json(run.thresholds), 0.5))
