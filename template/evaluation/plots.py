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
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from poutyne.utils import is_in_jupyter_notebook
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torchvision.utils import make_grid

from core.task import SEPARATOR, classes_of
from data.loaders import ShardedSequentialSampler
from evaluation.calibration import load_calibration
from evaluation.scoring import Scores, best_epoch, read_log, tp_fp_fn
from Project import Run

LAYOUT: dict[str, Any] = {"layout": "constrained", "dpi": 110}
MAX_NAMES = 125  # on an axis

# Class names can be in any script: installed fonts are used for those that DejaVu Sans lacks.
SCRIPTS = ("CJK", "Hei", "PingFang", "YaHei", "Hiragino", "Gothic", "Arial Unicode", "Noto Sans")
FONTS = {font.name for font in fontManager.ttflist if any(script in font.name for script in SCRIPTS)}
NAME_STYLE: dict[str, Any] = {
    "fontsize": 8,
    "fontfamily": ["DejaVu Sans", *sorted(FONTS)],
    "parse_math": False,
}


def image_grid(images: Sequence[Any], titles: Sequence[str]) -> Figure:
    """Draw images in rows of 8, each under its title: PIL images, or tensors (C, H, W) of uint8 or of float."""
    columns = min(8, len(images))
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.5 * columns, 1.72 * rows), **LAYOUT)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, title in zip(figure.axes, images, titles, strict=False):
        if isinstance(image, torch.Tensor):
            image = make_grid(image, normalize=image.is_floating_point()).movedim(0, -1).numpy(force=True)
        axes.imshow(image, cmap="gray")
        axes.set_title(printable(title)[:18], **NAME_STYLE)
    return figure


def batch_grid(dl: DataLoader, n: int = 16) -> Figure:
    """Draw at most n images of a loader as the network gets them, each under the name of its class.

    A loader that shuffles gives its next batch, any other one images from all of its dataset.
    """
    # a batch may hold one class only
    if isinstance(dl.sampler, (SequentialSampler, ShardedSequentialSampler)):
        size = len(dl.dataset)
        n = min(n, size)
        items = [dl.dataset[i * size // n] for i in range(n)]
        images, labels = zip(*items, strict=True)
    else:
        images, labels = next(iter(dl))
    return image_grid(images[:n], class_names(dl.dataset, labels[:n]))


def class_names(dataset: Dataset, labels: Any) -> list[str]:
    """Return the names of labels, (N,) or (N, C), from the `classes` of a dataset or of the one that it wraps."""
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
    }
    if calibration.max_error is not None:
        figures["risk_coverage"] = risk_coverage(
            scores.confidence, scores.correct, calibration.confidence_threshold
        )
    return figures


def curves(log: pd.DataFrame, best_epoch: int) -> Figure:
    """Plot loss, accuracy and learning rate over the epochs; a line marks the best epoch."""
    figure = Figure(figsize=(9.5, 2.9), **LAYOUT)
    # several if layers have rates of their own
    lr_columns = [column for column in log if column.startswith("lr")]
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


def rates(rates: Sequence[float], losses: Sequence[float], suggestion: float) -> Figure:
    """Plot the loss at rising learning rates; a line marks the suggested one."""
    axes = new_axes(6, 3.4, "learning rate", "loss")
    axes.loglog(rates, losses)
    axes.axvline(suggestion, color="C1", ls="--", label=f"suggested: {suggestion:.1g}")
    axes.legend()
    return axes.figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Plot a confusion matrix (C, C), or for multilabel (C, 2, 2), a row of counts for each class."""
    columns = classes
    labels = ("predicted", "true")
    if counts.ndim == 3:
        tp, fp, fn = tp_fp_fn(counts)
        counts = np.stack([tp, fn, fp], axis=1)
        columns = ["true positives", "false negatives", "false positives"]
        labels = ("", "class")
    small = len(classes) <= 30
    cell = 0.4 if small else 0.135  # inches
    height, width = cell * np.minimum(counts.shape, MAX_NAMES)
    axes = new_axes(width + 2.8, height + 2.2, *labels)
    axes.grid(visible=False)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    heatmap = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.figure.colorbar(heatmap, label="share of the row", shrink=0.8)
    set_names(axes.xaxis, columns)
    set_names(axes.yaxis, classes)
    axes.tick_params(axis="x", rotation=90)
    if small:
        for i, j in np.ndindex(counts.shape):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, counts[i, j], ha="center", va="center", color=color, fontsize=8)
    return axes.figure


def reliability(confidence: np.ndarray, correct: np.ndarray, n_bins: int = 15) -> Figure:
    """Plot accuracy against confidence (N,), in bins of equal width (Guo et al., ICML 2017)."""
    answers = pd.DataFrame({"confidence": confidence, "correct": correct})
    bins = np.ceil(confidence * n_bins).clip(1)
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
    n = len(correct)
    order = np.argsort(-confidence, kind="stable")
    n_wrong = np.cumsum(~correct[order])
    n_answered = np.arange(1, n + 1)
    axes = new_axes(4.4, 4, "share of images answered", "share of wrong answers")
    axes.step(n_answered / n, n_wrong / n_answered, where="post", label="of the answers given")
    axes.step(n_answered / n, n_wrong / n, where="post", label="of all images")
    if threshold is not None:
        answered = np.mean(confidence >= threshold)
        axes.axvline(answered, color="C2", ls="--", label=f"answered: {100 * answered:.0f} %")
    axes.legend()
    return axes.figure


def new_axes(width: float, height: float, xlabel: str, ylabel: str) -> Axes:
    """Return the axes of a figure with one plot, its size in inches."""
    axes = Figure(figsize=(width, height), **LAYOUT).add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    return axes


def set_names(axis: Axis, names: Sequence[str]) -> None:
    """Label an axis with names, or with some of them if they are many."""
    step = math.ceil(len(names) / MAX_NAMES)
    labels = [printable(name) for name in names[::step]]
    axis.set_ticks(range(0, len(names), step), labels, **NAME_STYLE)


def printable(name: str) -> str:
    """Replace characters that cannot be drawn: control characters, and bytes of an unknown encoding."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name)


def show_figure(figure: Figure, name: str, file: str | Path | None = None) -> None:
    """Write a figure to `file`; if none is given, show it in the notebook, or outside of one, write it as `name`."""
    if file is None and is_in_jupyter_notebook():
        from IPython.display import Image, display

        png = BytesIO()
        figure.savefig(png, format="png", bbox_inches="tight")
        display(Image(png.getvalue()))
    else:
        file = file or name
        figure.savefig(file, bbox_inches="tight")
        print(f"written: {file}")
