"""Pictures of what happened, as matplotlib figures. None of them opens a window."""

import math
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import font_manager, rcParams
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from core.task import SEPARATOR, classes_of
from data.loaders import ShardedSequentialSampler
from evaluation.calibration import Bins

# Columns of log.csv that callbacks/EpochLogger.py adds, and what they are called.
TIMES = {"data_time": "waiting for images", "train_time": "training", "val_time": "validation"}


def image_grid(images: Sequence[Any], titles: Sequence[str], columns: int = 8) -> Figure:
    """Pictures side by side, each under its title.

    Args:
        images: PIL images, or tensors (C, H, W): uint8, or float, which is stretched so that all of it can be seen.
        titles: one for each.
        columns: how many stand in a row, at most.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    figure = Figure(figsize=(1.5 * columns, 1.72 * rows), layout="constrained", dpi=110)
    for axes in figure.subplots(rows, columns, squeeze=False, subplot_kw={"xticks": (), "yticks": ()}).flat:
        axes.axis("off")
    for axes, image, title in zip(figure.axes, images, titles, strict=False):
        axes.imshow(as_array(image), cmap="gray", interpolation="antialiased")
        axes.set_title(shown(title if len(title) <= 18 else f"{title[:17]}…"), fontsize=9, **as_typed())
    return figure


def as_array(image: Any) -> np.ndarray:
    """A picture as matplotlib takes it: (H, W) or (H, W, 3), uint8 or float from 0 to 1."""
    if not isinstance(image, torch.Tensor):
        return np.asarray(image)
    array = image.detach().cpu().movedim(0, -1).numpy()
    if array.dtype != np.uint8:
        low, high = array.min(), array.max()
        array = (array - low) / max(high - low, 1e-8)
    return array[..., 0] if array.shape[-1] == 1 else array


@cache
def as_typed() -> dict[str, Any]:
    """Text properties for names of classes: in any script that a font here has, and `$_$` is no formula."""
    scripts = ("CJK", "Hei", "PingFang", "YaHei", "Hiragino", "Gothic", "Arial Unicode", "Noto Sans")
    others = {font.name for font in font_manager.fontManager.ttflist if any(name in font.name for name in scripts)}
    return {"parse_math": False, "fontfamily": ["DejaVu Sans", *sorted(others)]}


def shown(name: str) -> str:
    """A name as it can be drawn: letters of an unknown encoding and control characters as a replacement sign."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def ink() -> str:
    """The colour of text, dark or light as the style of the moment has it."""
    return rcParams["text.color"]


def curves(log: dict[str, list[float]], best_epoch: int, monitor: str) -> Figure:
    """Loss, accuracy and learning rate over the epochs.

    Args:
        log: columns of log.csv: epoch, loss, val_loss, acc, val_acc (from 0 to 1), lr.
        best_epoch: is marked.
        monitor: the column that decided which epoch that is.
    """
    figure = Figure(figsize=(9.5, 2.9), layout="constrained", dpi=110)
    rates = tuple(name for name in log if name == "lr" or name.startswith("lr_"))  # one for each group that is unfrozen
    panels = {"loss": ("loss", "val_loss"), "accuracy, %": ("acc", "val_acc"), "learning rate": rates}
    for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name, style in zip(names, (f"C{i}" for i in range(10)), strict=False):
            label = "validation" if name.startswith("val_") else "training"
            axes.plot(log["epoch"], log[name], style, marker=".", label=label)
            if name == monitor:
                value = log[name][log["epoch"].index(best_epoch)]
                axes.plot(best_epoch, value, "o", ms=10, mfc="none", mec=ink(), label=f"best: epoch {best_epoch:.0f}")
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(min(log["epoch"]) - 0.5, max(log["epoch"]) + 0.5)
        axes.grid(alpha=0.3)
        if title == "accuracy, %":
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
        if names != rates:
            axes.legend(fontsize=8)
        else:
            axes.set_ylim(bottom=0)
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    return figure


def rates(rates: Sequence[float], losses: Sequence[float], suggestion: float) -> Figure:
    """The loss at rising learning rates.

    Args:
        rates: from small to large.
        losses: one for each.
        suggestion: is marked.
    """
    figure = Figure(figsize=(6, 3.4), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    axes.plot(rates, losses)
    axes.axvline(suggestion, color="C1", ls="--", label=f"suggested: {suggestion:.1g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    finite = [loss for loss in losses if math.isfinite(loss)]
    if finite:
        axes.set_ylim(0.9 * min(finite), 1.1 * max(finite[:10]) + 0.1 * min(finite))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """How often each class was taken for which, or where an image can have several, found, missed and made up.

    Args:
        counts: (n_classes, n_classes) or (n_classes, 2, 2) of int, true down, predicted across.
        classes: their names.
    """
    if counts.ndim == 2:
        return confusion_matrix(counts, classes)
    found, missed, made_up = counts[:, 1, 1], counts[:, 1, 0], counts[:, 0, 1]
    rows = np.arange(len(classes))[::-1]
    figure = Figure(figsize=(6.4, 1.3 + 0.28 * len(classes)), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    for start, width, label, colour in ((0 * found, found, "found", "C0"), (found, missed, "missed", "0.75")):
        axes.barh(rows, width, left=start, color=colour, label=label)
    axes.barh(rows, -made_up, color="C3", label="made up")
    axes.axvline(0, color=ink(), lw=0.8)
    axes.set_yticks(rows, map(shown, classes), fontsize=max(4.0, 9 - len(classes) / 20), **as_typed())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(lambda x, _: f"{abs(x):.0f}")
    axes.set_xlabel("images")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """How often each class was taken for which.

    Args:
        counts: (n_classes, n_classes) of int, true classes down, predicted across.
        classes: their names.
    """
    n, (side, size) = len(classes), confusion_size(len(classes))
    figure = Figure(figsize=(side + 0.6, side), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    slant = {"rotation": 45, "ha": "right"} if n > 4 else {}
    axes.set_xticks(range(n), map(shown, classes), fontsize=size, **slant, **as_typed())
    axes.set_yticks(range(n), map(shown, classes), fontsize=size, **as_typed())
    axes.set(xlabel="predicted", ylabel="true")
    if n <= 30:
        for i, j in np.ndindex(counts.shape):
            colour = "white" if sum(to_rgb(picture.cmap(shares[i, j]))) < 1.5 else "black"
            axes.text(j, i, counts[i, j], ha="center", va="center", color=colour, fontsize=size)
    figure.colorbar(picture, label="share of the true class", shrink=0.8)
    return figure


def confusion_size(n: int) -> tuple[float, float]:
    """Side of the confusion matrix of n classes, in inches, and size of its letters, in points."""
    return min(14.0, 2.6 + 0.45 * n), max(3.0, 9 - n / 12)


def confusion_width(n: int) -> int:
    """How many pixels wide the confusion matrix of n classes has to be shown, so that its letters are 9 pixels high."""
    side, letters = confusion_size(n)
    return round((side + 0.6) * 72 * 9 / letters)


def reliability(bins: Bins) -> Figure:
    """Plot how often the network is right against how confident it is.

    Args:
        bins: of its answers.
    """
    figure = Figure(figsize=(4.4, 4), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    full = bins.counts > 0
    width = 1 / len(bins.counts)
    axes.bar((np.arange(len(bins.counts)) + 0.5)[full] * width, bins.right[full], 0.9 * width, alpha=0.8)
    axes.plot([0, 1], [0, 1], "--", color=ink(), lw=1, label="as often as it says")
    axes.plot(bins.said[full], bins.right[full], "o", color="C1", ms=4, label="said, and right")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability that is said", ylabel="share that is right", aspect="equal")
    axes.legend(fontsize=8, loc="upper left")
    return figure


def risk_coverage(confidence: np.ndarray, right: np.ndarray, threshold: float | None) -> Figure:
    """Plot what share of the answers given, and of all images, is wrong if only the most confident answers are given.

    Args:
        confidence: (N,) probability of each answer.
        right: (N,) of bool.
        threshold: below it `predict.py` says unsure; is marked.
    """
    figure = Figure(figsize=(4.4, 4), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    wrong = np.cumsum(~right[order])
    axes.step(100 * answered / len(order), 100 * wrong / answered, where="post", label="of the answers given")
    axes.step(100 * answered / len(order), 100 * wrong / len(order), where="post", label="of all images")
    if threshold is not None:
        share = 100 * np.mean(confidence >= threshold)
        axes.axvline(share, color="C2", ls="--", label=f"sure enough: {share:.0f} %")
    axes.legend(fontsize=8)
    axes.set(xlim=(0, 101), xlabel="images answered, %", ylabel="wrong, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    return figure


def times(log: dict[str, list[float]]) -> Figure:
    """What each epoch spent its time on.

    Args:
        log: columns of log.csv; those that end in `_time`, in seconds.
    """
    figure = Figure(figsize=(9.5, 2.4), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    below = np.zeros(len(log["epoch"]))
    for name, label in TIMES.items():
        if name in log:
            axes.bar(log["epoch"], log[name], bottom=below, label=label)
            below += log[name]
    axes.set(xlabel="epoch", ylabel="seconds", xlim=(min(log["epoch"]) - 0.5, max(log["epoch"]) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def class_names(dataset: Dataset, labels: Any) -> list[str]:
    """Names of these labels, from the first `classes` found in the data set or in what it wraps.

    Args:
        dataset: or a view of one.
        labels: for each picture a number; or 0 and 1 for each class, and then the names stand beside one another.
    """
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    rows = [torch.as_tensor(label).tolist() for label in labels]
    return [SEPARATOR.join(str(classes[i] if classes else i) for i in classes_of(row)) for row in rows]


def batch_grid(dl: DataLoader, n: int = 16) -> Figure:
    """Draw images of a loader as the network gets them, each under the name of its class.

    From a loader that shuffles, its next batch; from one that does not, images from all over it.

    Args:
        dl: a loader of batches (images, labels): images (N, C, H, W), uint8 or float.
        n: how many images at most; a loader that shuffles shows no more than one batch.
    """
    if type(dl.sampler) in (SequentialSampler, ShardedSequentialSampler):  # its first batch may be all of one class
        size = len(dl.dataset)
        count = min(n, size)
        images, labels = zip(*(dl.dataset[i * size // count] for i in range(count)), strict=True)
    else:
        images, labels = next(iter(dl))
    return image_grid(images[:n], class_names(dl.dataset, labels[:n]))


def show_figure(figure: Figure, file: str | Path, inline: bool = True) -> None:
    """Shows a figure in the notebook if there is one and `inline` is set, else writes it to a file. Never waits."""
    from poutyne.utils import is_in_jupyter_notebook

    if inline and is_in_jupyter_notebook():
        from IPython.display import Image, display

        picture = BytesIO()
        figure.savefig(picture, format="png", bbox_inches="tight")
        display(Image(picture.getvalue()))
    else:
        figure.savefig(file, bbox_inches="tight")
        print(f"drawn: {file}")
