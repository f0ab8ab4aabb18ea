"""The task: an image has one class, or any number of them. Whatever differs between the two stands here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from core.files import read_json, write_json
from Project import Run

Label = int | tuple[int, ...]  # the class; or 0 and 1 for each class, where an image can have several

SEPARATOR = "|"  # between the names of several classes


@dataclass(frozen=True)
class Task:
    """One class an image, or any number of them.

    Attributes:
        classes: names by label.
        multilabel: whether an image can have any number of classes.
        thresholds: by class, the probability from which on an image has it (default: one half); only for `multilabel`.
    """

    classes: list[str]
    multilabel: bool = False
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """What an image has, for people."""
        return "several classes" if self.multilabel else "one class"

    @property
    def kind(self) -> str:
        """What torchmetrics calls it."""
        return "multilabel" if self.multilabel else "multiclass"

    @property
    def default_loss(self) -> str:
        """Name of the loss that suits it."""
        return "bce" if self.multilabel else "cross_entropy"

    @property
    def files(self) -> dict[str, Any]:
        """What a run folder holds of it, by the names of the JSON files."""
        if not self.multilabel:
            return {"classes.json": self.classes}
        thresholds = {name: self.thresholds.get(name, 0.5) for name in self.classes}
        return {"classes.json": self.classes, "thresholds.json": thresholds}

    def activate(self, logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Compute probabilities (…, n_classes) from logits of the same shape, divided by the temperature."""
        logits = logits / temperature
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=-1)

    def decode(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Predict labels from probabilities (…, n_classes): (…) of classes, or (…, n_classes) of 0 and 1."""
        if not self.multilabel:
            return probabilities.argmax(dim=-1)
        thresholds = list(self.files["thresholds.json"].values())
        return (probabilities >= probabilities.new_tensor(thresholds)).long()

    def harden(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the class with the largest share of each image, or all classes with more than half of it.

        Args:
            labels: soft ones, (N, n_classes) of float; any of int64 are returned as they are.
        """
        if not labels.is_floating_point():
            return labels
        return (labels > 0.5).long() if self.multilabel else labels.argmax(dim=1)

    def encode(self, names: Sequence[str]) -> Label:
        """Return the label of an image with these classes.

        Raises:
            ValueError: the only class is unknown.
        """
        if self.multilabel:
            return tuple(int(name in names) for name in self.classes)
        return self.classes.index(names[0])

    def parse(self, text: str) -> Label:
        """Return the label that `describe` has written."""
        return self.encode(split_names(text) if self.multilabel else [text])

    def names(self, label: Label | list[int]) -> list[str]:
        """Return the names of the classes that an image has."""
        return [self.classes[i] for i in classes_of(label)]

    def describe(self, label: Label | list[int]) -> str:
        """Return the names of the classes that an image has, in one text."""
        return SEPARATOR.join(self.names(label))

    def empty_labels(self, n: int) -> torch.Tensor:
        """Return labels of n images, all of them 0: (n,) or (n, n_classes) of int64."""
        return torch.zeros((n, len(self.classes)) if self.multilabel else n, dtype=torch.int64)

    def accuracies(self, labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """Count right answers: `acc`, and for several classes `exact_match`, images without a wrong one."""
        right = labels == predicted
        if not self.multilabel:
            return {"acc": float(right.mean())}
        return {"exact_match": float(right.all(axis=1).mean()), "acc": float(right.mean())}

    def confidence(self, probabilities: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Return the probability of each answer: (N,), or (N, n_classes) of each yes and each no."""
        if self.multilabel:
            return np.where(predicted == 1, probabilities, 1 - probabilities)
        return probabilities[np.arange(len(predicted)), predicted]

    def class_weights(self, counts: np.ndarray, n_images: int) -> np.ndarray:
        """Return how much each class has to count in the loss for all of them to weigh the same.

        Args:
            counts: (n_classes,) images of each class, at least 1.
            n_images: all of them.

        Returns:
            (n_classes,) of float64. With one class an image: images / (classes × images of this class). Where an image
            can have several: images without the class / images with it.
        """
        if self.multilabel:
            return np.maximum(n_images - counts, 1) / counts
        return n_images / (len(counts) * counts)


def classes_of(label: Label | list[int]) -> list[int]:
    """Return the numbers of the classes that a label stands for."""
    return [label] if isinstance(label, int) else [i for i, there in enumerate(label) if there]


def split_names(text: str) -> list[str]:
    """Return the names of classes that stand in a text, with a `|` between them."""
    return [name.strip() for name in text.split(SEPARATOR) if name.strip()]


def load_task(run: Run) -> Task:
    """Return the task of a run: an image can have several classes where the folder holds thresholds.json.

    Raises:
        UserError: a file cannot be read.
    """
    if run.thresholds.exists():
        return Task(read_json(run.classes), multilabel=True, thresholds=read_json(run.thresholds))
    return Task(read_json(run.classes))


def reset_thresholds(run: Run) -> None:
    """Set the thresholds of a run, if it has any, back to one half: they were chosen for other weights."""
    if run.thresholds.exists():
        write_json(run.thresholds, dict.fromkeys(read_json(run.thresholds), 0.5))
