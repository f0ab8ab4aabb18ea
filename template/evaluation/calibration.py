"""Calibrated probabilities, and the confidence below which `predict.py` answers "unsure"."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize
from torch import Tensor
from torch.nn import functional

from core.errors import UserError
from core.files import read_json
from Project import Run


class Answers(NamedTuple):
    """Number of images, of answers given for them, and of wrong ones among these."""

    n_images: int
    n_answered: int
    n_wrong: int

    def __str__(self) -> str:
        return (
            f"{self.n_answered} of {self.n_images} images are answered, {self.n_wrong} of them wrongly: "
            f"{100 * self.n_wrong / max(self.n_answered, 1):.1f} % of the answers given, "
            f"{100 * self.n_wrong / max(self.n_images, 1):.1f} % of all images"
        )


@dataclass(frozen=True)
class Calibration:
    """Calibration of a network, fitted on the validation set; the default one changes nothing."""

    temperature: float = 1.0  # divides the logits before they become probabilities
    # largest share of all images that may get a wrong answer; None for multilabel
    max_error: float | None = None
    # lowest confidence of an answer; None: no guarantee, all are given
    confidence_threshold: float | None = None
    n_images: int = 0  # in the validation set
    n_answered: int = 0
    n_wrong: int = 0  # among those answered

    def is_confident(self, p: float) -> bool:
        """Return whether an answer of this probability is given."""
        return p >= (self.confidence_threshold or 0)

    @property
    def guarantee(self) -> str:
        """Text that says what `max_error` guarantees, or why it guarantees nothing."""
        n = self.n_images
        counts = f"On the validation set, {Answers(n, self.n_answered, self.n_wrong)}."
        if self.confidence_threshold is not None:
            return (
                f"Of images like the training images, at most {100 * self.max_error:g} % get a wrong answer on average "
                f"(of the answers given, more can be wrong). {counts}"
            )
        reason = "the most confident answers on the validation set are wrong"
        if self.max_error < 1 / (n + 1):
            reason = f"{n} validation images can guarantee no less than 1/{n + 1} ({100 / (n + 1):.2g} %)"
        return (
            f"--max-error {self.max_error:g} cannot be guaranteed, so every image is answered: {reason}; "
            f"train with more validation images or a higher --max-error. {counts}"
        )


def count_answers(confidence: np.ndarray, correct: np.ndarray, threshold: float | None) -> Answers:
    """Count the answers with a confidence from `threshold` on, or all of them if there is none."""
    answered = confidence >= (threshold or 0)
    wrong = answered & ~correct
    return Answers(len(answered), int(answered.sum()), int(wrong.sum()))


def calibrate(logits: Tensor, labels: Tensor, max_error: float) -> Calibration:
    """Fit temperature and confidence threshold on the validation set: logits (N, C), labels (N,)."""
    temperature = fit_temperature(logits, labels)
    p, predicted = functional.softmax(logits / temperature, dim=1).max(dim=1)
    confidence = p.numpy()
    correct = (predicted == labels).numpy()
    threshold = find_threshold(confidence, correct, max_error)
    answers = count_answers(confidence, correct, threshold)
    return Calibration(temperature, max_error, threshold, *answers)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Fit the temperature with the lowest cross-entropy (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    The labels are smoothed as if one more image had been wrong (Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999): otherwise a validation set without a mistake would make the network infinitely confident.
    """
    logits = logits.double()
    smoothing = 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return functional.cross_entropy(scaled, labels, label_smoothing=smoothing).item()

    bounds = (math.log(0.05), math.log(20))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return round(math.exp(found.x), 4)


def find_threshold(confidence: np.ndarray, correct: np.ndarray, max_error: float) -> float | None:
    """Find the lowest threshold for which at most a share of `max_error` of all images gets a wrong answer.

    With k wrong answers on n images, the share is estimated as (k + 1) / (n + 1). The bound then holds on average for
    new images of the same distribution, for any n (Angelopoulos et al., "Conformal Risk Control", ICLR 2024).
    The threshold is 0 if all images can be answered, and None if no threshold meets the bound.
    """
    wrong = pd.Series(~correct).groupby(confidence).sum()
    n_wrong = wrong[::-1].cumsum()  # if answers of this confidence or more are given
    errors = (n_wrong + 1) / (len(correct) + 1)
    allowed = errors.index[errors <= max_error]
    if allowed.empty:
        return None
    if len(allowed) == len(errors):
        return 0.0
    return math.floor(allowed.min() * 1e6) / 1e6  # rounded up, it would exclude its own image


def best_thresholds(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Find the probability threshold with the highest F1 for each class, in multilabel classification.

    0.5 is not optimal for F1, least of all for rare classes (Lipton, Elkan and Naryanaswamy, "Optimal Thresholding of
    Classifiers to Maximize F1 Measure", ECML 2014). Classes without an image get 0.5.

    Args:
        logits, labels: (N, C) of float, (N, C) of 0 and 1.
        classes: names of the classes.
    """
    thresholds = {}
    probabilities = logits.sigmoid().T.numpy()
    for name, p, truth in zip(classes, probabilities, labels.T.numpy(), strict=True):
        by_p = pd.Series(truth).groupby(p).agg(["sum", "size"])
        counts = by_p[::-1].cumsum()  # if a class needs this probability or more
        f1 = 2 * counts["sum"] / (counts["size"] + truth.sum())
        best = f1.argmax()
        candidates = [*f1.index, 0.0]
        middle = (candidates[best] + candidates[best + 1]) / 2
        thresholds[name] = float(middle) if truth.any() else 0.5
    return thresholds


def load_calibration(run: Run) -> Calibration:
    """Load the calibration of a run; a multilabel one has the default."""
    if not run.calibration.exists():
        return Calibration()
    try:
        return Calibration(**read_json(run.calibration))
    except TypeError as error:
        raise UserError(f"{run.calibration} cannot be read; was it changed?") from error
