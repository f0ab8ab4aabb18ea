"""How far the probabilities of a network can be believed, and when it had better say that it is not sure."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from scipy import stats
from torch.nn import functional

from core.errors import UserError
from core.files import read_json, write_json
from core.task import Task
from Project import Run


@dataclass(frozen=True)
class Calibration:
    """What is known of a network's certainty, from the validation set.

    Attributes:
        temperature: logits are divided by it before they become probabilities.
        max_error: the share of all images that may get a wrong answer.
        threshold: the least probability of an answer; None where the max_error cannot be promised, so all are answered.
        n_images, n_answered, n_wrong: images of the validation set, answers given on them, and wrong ones among these.
    """

    temperature: float = 1.0
    max_error: float | None = None
    threshold: float | None = None
    n_images: int = 0
    n_answered: int = 0
    n_wrong: int = 0

    def is_confident(self, p: float) -> bool:
        """Whether an answer of this probability may be given."""
        return self.threshold is None or p >= self.threshold

    @property
    def promise(self) -> str:
        """What `risk` promises, or why it promises nothing, and what share of the answers is wrong; in sentences."""
        counted = f"On the validation set, {count_answers(self.n_images, self.n_answered, self.n_wrong)}."
        if self.threshold is not None:
            return (
                f"Of all images like those it was trained on, at most {100 * self.max_error:g} % get a wrong answer on "
                f"average. Of the answers given, more can be wrong. {counted}"
            )
        reason = "the most confident answers on the validation set are wrong"
        n = self.n_images
        if self.max_error < 1 / (n + 1):
            reason = f"{n} validation images can promise no less than 1/{n + 1} ({100 / (n + 1):.2g} %)"
        return (
            f"--max-error {self.max_error:g} cannot be promised, so every image is answered: {reason}; "
            f"train with more validation images or a higher --max-error. {counted}"
        )


def calibrate(task: Task, logits: torch.Tensor, labels: torch.Tensor, max_error: float) -> Calibration:
    """Fit the temperature and find the threshold on the validation set.

    Args:
        task: with one class an image.
        logits: (N, C) of float.
        labels: (N,) of int64.
        max_error: the share of all images that may get a wrong answer, from 0 to 1.
    """
    temperature = fit_temperature(logits, labels)
    p, guesses = task.activate(logits, temperature).max(dim=1)
    right = (guesses == labels).numpy()
    threshold = find_threshold(p.numpy(), right, max_error)
    answered = p.numpy() >= (threshold or 0.0)
    return Calibration(temperature, max_error, threshold, len(p), int(answered.sum()), int((answered & ~right).sum()))


def fit_answers(
    run: Run, task: Task, logits: torch.Tensor, labels: torch.Tensor, max_error: float
) -> tuple[Task, Calibration]:
    """Find on the validation set what makes the best answers of logits, and write it into the folder of a run.

    Args:
        run: gets thresholds.json where an image can have several classes, else calibration.json.
        task: of the run.
        logits, labels: of the validation set.
        max_error: the share of all images that may get a wrong answer, from 0 to 1.

    Returns:
        The task with its thresholds, and the calibration.
    """
    if task.multilabel:
        thresholds = best_thresholds(logits, labels, task.classes)
        write_json(run.thresholds, thresholds)
        return replace(task, thresholds=thresholds), Calibration()
    calibration = calibrate(task, logits, labels, max_error)
    write_json(run.calibration, asdict(calibration))
    return task, calibration


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


def count_answers(n_images: int, n_answered: int, n_wrong: int) -> str:
    """Return in words how many images are answered, and what share of the answers and of all images is wrong."""
    of_answers, of_images = 100 * n_wrong / max(n_answered, 1), 100 * n_wrong / max(n_images, 1)
    return (
        f"{n_answered} of {n_images} images are answered and {n_wrong} of them wrongly: {of_answers:.1f} % of the "
        f"answers given, {of_images:.1f} % of all images"
    )


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature that makes the probabilities fit best.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. The labels are
    smoothed as if one more picture had been wrong (Platt, "Probabilistic Outputs for Support Vector Machines", 1999):
    else a validation set without a mistake would make the network infinitely sure.

    Args:
        logits: (N, C) of float.
        labels: (N,) of int64.

    Returns:
        Between 0.05 and 20; above 1 where the network was too sure.
    """
    logits = logits.double()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(logits / log_temperature.exp(), labels, label_smoothing=1 / (len(labels) + 2))
        loss.backward()
        return loss

    optimizer.step(closure)
    return round(min(max(log_temperature.exp().item(), 0.05), 20.0), 4)


def find_threshold(p: np.ndarray, right: np.ndarray, max_error: float) -> float | None:
    """The least probability from which on answers are given, so that no more than this share of pictures is mistaken.

    Of n pictures with k wrong answers (k + 1) / (n + 1) is taken for the share. So the promise holds for new pictures
    of the same kind, on average over validation sets, however few pictures these have (Angelopoulos et al., "Conformal
    Risk Control", ICLR 2024).

    Args:
        p: (N,) probability of each answer.
        right: (N,) of bool.
        max_error: from 0 to 1.

    Returns:
        The threshold, 0 where every answer may be given; or None where there are too few pictures, or the surest
        answers are wrong, so that only silence could keep the promise.
    """
    order = np.argsort(-p, kind="stable")
    shares = (np.cumsum(~right[order]) + 1) / (len(p) + 1)
    last_of_equals = np.append(p[order][1:] != p[order][:-1], True)
    allowed = np.flatnonzero((shares <= max_error) & last_of_equals)
    if not len(allowed):
        return None
    if allowed[-1] == len(p) - 1:
        return 0.0
    return math.floor(p[order][allowed[-1]] * 1e6) / 1e6  # rounded up, it would shut out its own


@dataclass(frozen=True)
class Bins:
    """Answers by how sure they were: (B,) each.

    Attributes:
        counts: how many.
        said: mean probability.
        right: share that was right.
    """

    counts: np.ndarray
    said: np.ndarray
    right: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error (Guo et al., 2017): the mean distance between what was said and what was right."""
        return float((self.counts * np.abs(self.said - self.right)).sum() / max(1, self.counts.sum()))


def calibration_bins(p: np.ndarray, right: np.ndarray, n: int = 15) -> Bins:
    """Shares answers out among n bins of equal width.

    Args:
        p: (N,) from 0 to 1.
        right: (N,) of bool.
        n: how many bins; 15 as in the paper.
    """
    where = np.clip(np.ceil(p * n).astype(int) - 1, 0, n - 1)
    counts = np.bincount(where, minlength=n)
    said, right = (np.bincount(where, values, n) / np.maximum(counts, 1) for values in (p, right.astype(float)))
    return Bins(counts, said, right)


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """Where a share of k of n may really be, at 95 % (Wilson, Journal of the American Statistical Association 1927)."""
    if n == 0:
        return 0.0, 1.0
    found = stats.binomtest(int(k), int(n)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def f1_interval(hits: int, false: int, missed: int) -> tuple[float, float]:
    """The same for F1: it rises with the share of hits among hits, false alarms and missed ones, F1 = 2 s / (1 + s)."""
    low, high = wilson_interval(hits, hits + false + missed)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def load_calibration(run: Run) -> Calibration:
    """What was kept with a run; nothing is known where an image can have several classes.

    Raises:
        UserError: the file cannot be read.
    """
    if not run.calibration.exists():
        return Calibration()
    try:
        return Calibration(**read_json(run.calibration))
    except TypeError as error:
        raise UserError(f"{run.calibration} cannot be read; was it changed?") from error
