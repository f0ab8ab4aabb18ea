"""Figures of images, training and scores, drawn with matplotlib without opening a window."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from poutyne.utils import is_in_jupyter_notebook
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torchvision.transforms.functional import to_pil_image

from core.task import SEPARATOR, classes_of
from data.loaders import ShardedSequentialSampler
from evaluation.calibration import load_calibration
from evaluation.scoring import Scores, best_epoch, read_log, tp_fp_fn
from Project import Run

# Columns of log.csv with the seconds of an epoch (see callbacks/EpochLogger.py), and their labels.
TIMES = {"data_time": "waiting for images", "train_time": "training", "val_time": "validation"}

# Class names can be in any script: installed fonts are used for those that DejaVu Sans lacks.
SCRIPTS = ("CJK", "Hei", "PingFang", "YaHei", "Hiragino", "Gothic", "Arial Unicode", "Noto Sans")
FONTS = {font.name for font in fontManager.ttflist if any(script in font.name for script in SCRIPTS)}
NAME_STYLE: dict[str, Any] = {"parse_math": False, "fontfamily": ["DejaVu Sans", *sorted(FONTS)]}


def image_grid(images: Sequence[Any], titles: Sequence[str]) -> Figure:
    """Draw images in rows of 8, each under its title.

    Args:
        images: PIL images, or tensors (C, H, W) of uint8, or of float in any range.
        titles: one for each image.
    """
    columns = min(8, len(images))
    rows = math.ceil(len(images) / columns)
    figure = new_figure(1.5 * columns, 1.72 * rows)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, title in zip(figure.axes, images, titles, strict=False):
        axes.imshow(drawable(image), cmap="gray")
        short_title = title if len(title) <= 18 else title[:17] + "…"
        axes.set_title(printable(short_title), fontsize=9, **NAME_STYLE)
    return figure


def batch_grid(dl: DataLoader, n: int = 16) -> Figure:
    """Draw at most n images of a loader as the network gets them, each under the name of its class.

    A loader that shuffles gives its next batch, any other one images from all of its data set.
    """
    if type(dl.sampler) in (SequentialSampler, ShardedSequentialSampler):  # its first batch may hold one class only
        size = len(dl.dataset)
        count = min(n, size)
        items = [dl.dataset[i * size // count] for i in range(count)]
        images, labels = zip(*items, strict=True)
    else:
        images, labels = next(iter(dl))
    return image_grid(images[:n], class_names(dl.dataset, labels[:n]))


def class_names(dataset: Dataset, labels: Any) -> list[str]:
    """Return the names of labels, (N,) of int or (N, C) of 0 and 1, from a data set's `classes`.

    They are looked up in the data set itself, or in the one that it wraps; without any, labels stay numbers.
    """
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    names = []
    for label in labels:
        indices = classes_of(torch.as_tensor(label).tolist())
        names.append(SEPARATOR.join(str(classes[i] if classes else i) for i in indices))
    return names


def run_figures(run: Run, scores: Scores) -> dict[str, Figure]:
    """Draw the figures of a run's training and of scores of its network."""
    log = read_log(run)
    calibration = load_calibration(run)
    figures = {
        "curves": curves(log, best_epoch(log)),
        "confusion": confusion(scores.confusion, scores.task.classes),
        "reliability": reliability(scores.confidence.ravel(), scores.correct.ravel()),
        "times": times(log),
    }
    if calibration.max_error is not None:
        figures["risk_coverage"] = risk_coverage(scores.confidence, scores.correct, calibration.confidence_threshold)
    return figures


def curves(log: pd.DataFrame, best_epoch: int) -> Figure:
    """Plot loss, accuracy and learning rate over the epochs; a line marks the best epoch."""
    figure = new_figure(9.5, 2.9)
    lr_columns = [column for column in log if column.startswith("lr")]  # several if layers have rates of their own
    panels = {"loss": ["loss", "val_loss"], "accuracy": ["acc", "val_acc"], "learning rate": lr_columns}
    for axes, (title, columns) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.plot(log["epoch"], log[columns], marker=".", label=columns)
        axes.axvline(best_epoch, color="black", ls=":", label="best epoch")
        axes.set(title=title, xlabel="epoch")
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend()
    axes.set_ylim(bottom=0)
    return figure


def times(log: pd.DataFrame) -> Figure:
    """Plot what the seconds of each epoch were spent on."""
    axes = new_axes(9.5, 2.4, "epoch", "seconds")
    bottom = np.zeros(len(log))
    for column, label in TIMES.items():
        axes.bar(log["epoch"], log[column], bottom=bottom, label=label)
        bottom += log[column]
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.figure.legend(loc="outside right upper")
    return axes.figure


def rates(rates: Sequence[float], losses: Sequence[float], suggestion: float) -> Figure:
    """Plot the loss at rising learning rates; a line marks the suggested one."""
    axes = new_axes(6, 3.4, "learning rate", "loss")
    axes.semilogx(rates, losses)
    axes.axvline(suggestion, color="C1", ls="--", label=f"suggested: {suggestion:.1g}")
    finite = [loss for loss in losses if math.isfinite(loss)]
    if finite:
        axes.set_ylim(0.9 * min(finite), 1.1 * max(finite[:10]) + 0.1 * min(finite))
    axes.legend()
    return axes.figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Plot a confusion matrix (C, C), or with several classes per image the counts of each class (C, 2, 2)."""
    if counts.ndim == 2:
        return confusion_matrix(counts, classes)
    tp, fp, fn = tp_fp_fn(counts)
    rows = range(len(classes))
    axes = new_axes(5, 1 + 0.28 * len(classes), "images", "")
    axes.barh(rows, tp, color="C0", label="true positives")
    axes.barh(rows, fn, left=tp, color="0.75", label="false negatives")
    axes.barh(rows, fp, left=tp + fn, color="C3", label="false positives")
    axes.set_yticks(rows, map(printable, classes), fontsize=8, **NAME_STYLE)
    axes.invert_yaxis()
    axes.legend()
    return axes.figure


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Plot a confusion matrix (C, C), with its counts if there are at most 30 classes."""
    n = len(classes)
    cell = 0.36 if n <= 30 else 0.12
    side = 2.2 + cell * min(n, 140)
    font_size = 7  # in points; 9 pixels in the report
    axes = new_axes(side + 0.6, side, "predicted", "true")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    heatmap = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    step = math.ceil(n / 140)  # of more classes only some names fit
    names = [printable(name) for name in classes[::step]]
    axes.set_xticks(range(0, n, step), names, fontsize=font_size, rotation=90, **NAME_STYLE)
    axes.set_yticks(range(0, n, step), names, fontsize=font_size, **NAME_STYLE)
    axes.grid(visible=False)
    if n <= 30:
        for i, j in np.ndindex(counts.shape):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, counts[i, j], ha="center", va="center", color=color, fontsize=font_size)
    axes.figure.colorbar(heatmap, label="share of the true class", shrink=0.8)
    return axes.figure


def reliability(confidence: np.ndarray, correct: np.ndarray, n_bins: int = 15) -> Figure:
    """Plot accuracy against confidence (N,), in bins of equal width (Guo et al., ICML 2017)."""
    answers = pd.DataFrame({"confidence": confidence, "correct": correct})
    bins = np.ceil(confidence * n_bins).clip(1, n_bins)
    means = answers.groupby(bins).mean()
    axes = new_axes(4.4, 4, "confidence", "accuracy")
    axes.bar((means.index - 0.5) / n_bins, means["correct"], width=0.9 / n_bins)
    axes.plot([0, 1], [0, 1], "k--", label="perfect calibration")
    axes.plot(means["confidence"], means["correct"], "C1o", label="mean of each bin")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    return axes.figure


def risk_coverage(confidence: np.ndarray, correct: np.ndarray, threshold: float | None) -> Figure:
    """Plot the share of wrong answers if only the most confident answers are given; the threshold is marked."""
    order = np.argsort(-confidence, kind="stable")
    n_wrong = np.cumsum(~correct[order])
    n_answered = np.arange(1, len(order) + 1)
    coverage = n_answered / len(order)
    axes = new_axes(4.4, 4, "share of images answered", "share of wrong answers")
    axes.step(coverage, n_wrong / n_answered, where="post", label="of the answers given")
    axes.step(coverage, n_wrong / len(order), where="post", label="of all images")
    if threshold is not None:
        answered = np.mean(confidence >= threshold)
        axes.axvline(answered, color="C2", ls="--", label=f"answered: {100 * answered:.0f} %")
    axes.legend()
    return axes.figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, its size in inches."""
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def new_axes(width: float, height: float, xlabel: str, ylabel: str) -> Axes:
    """Return the axes of a figure with one plot."""
    axes = new_figure(width, height).add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    return axes


def drawable(image: Any) -> Any:
    """Convert a tensor (C, H, W) to a PIL image."""
    if not isinstance(image, torch.Tensor):
        return image
    if image.is_floating_point():
        image = image - image.min()
        image = image / image.max().clamp(min=1e-8)
    return to_pil_image(image)


def printable(name: str) -> str:
    """Replace characters that cannot be drawn: control characters, and bytes of an unknown encoding."""
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def show_figure(figure: Figure, file: str | Path, inline: bool = True) -> None:
    """Show a figure in the notebook; outside of one, or if not `inline`, write it to a file."""
    if inline and is_in_jupyter_notebook():
        from IPython.display import Image, display

        png = BytesIO()
        figure.savefig(png, format="png", bbox_inches="tight")
        display(Image(png.getvalue()))
    else:
        figure.savefig(file, bbox_inches="tight")
        print(f"written: {file}")
