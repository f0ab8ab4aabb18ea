"""`report.html`: the results of a run on one page that loads nothing else."""

import base64
import logging
import time
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure
from scipy import stats
from torch.utils.data import Dataset
from torchmetrics.functional.classification import binary_calibration_error

from config import Config, load_config
from core.files import atomic_write, read_json
from evaluation.calibration import count_answers, load_calibration
from evaluation.plots import run_figures
from evaluation.scoring import MONITOR, Scores, best_epoch, predictions_table, read_log, tp_fp_fn
from Project import Run

logger = logging.getLogger(__name__)

MAX_MISTAKES = 24  # in the gallery
# Options without a value unless the user gives one; the run fills in the others that are None by default.
NO_DEFAULT = {"data_dir", "fold", "grad_clip_norm", "unfreeze_epoch", "weight_decay"}


def render_report(run: Run, scores: Scores, dataset: Dataset, part: str) -> None:
    """Write report.html, or evaluate-<part>.html for other images than the test set.

    Args:
        scores, dataset: scores of these images, and the images untransformed.
        part: their name, such as "test".
    """
    log = read_log(run)
    calibration = load_calibration(run)
    answers = count_answers(scores.confidence, scores.correct, calibration.confidence_threshold)
    mistakes = list_mistakes(scores, dataset)
    figures = run_figures(run, scores)
    templates = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=templates, autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.jinja").render(
        name=run.folder.name,
        part=part,
        date=time.strftime("%Y-%m-%d"),
        scores=scores,
        accuracy=proportion(scores.correct.sum(), scores.correct.size),
        class_rows=class_rows(scores),
        n_mistakes=len(mistakes),
        confusions=mistakes.value_counts(["true", "predicted"]).head(10).reset_index(),
        gallery=add_thumbnails(mistakes.head(MAX_MISTAKES), dataset),
        calibration=calibration,
        calibration_error=calibration_error(scores),
        answers=answers,
        best_epoch=best_epoch(log),
        epochs=len(log),
        monitor=MONITOR,
        train_batch=data_url((run / "train_batch.png").read_bytes(), "png"),
        check=read_json(run.check) if run.check.exists() else {},
        times=read_json(run.times) if run.times.exists() else None,
        config=read_json(run.config),
        changed_options=changed_options(load_config(run)),
        figures={name: encode_svg(figure) for name, figure in figures.items()},
    )
    path = run.report if part == "test" else run / f"evaluate-{part}.html"
    with atomic_write(path) as file:
        file.write(page)
    logger.info("open %s", path)


def proportion(k: int, n: int) -> tuple[float, float, float] | None:
    """Return k / n and its 95 % Wilson interval (Wilson, JASA 1927); None if n is 0."""
    if n == 0:
        return None
    test = stats.binomtest(int(k), int(n))
    low, high = test.proportion_ci(method="wilson")
    return k / n, low, high


def class_rows(scores: Scores) -> list[dict[str, Any]]:
    """Return the number of images of each class, and its precision, recall and F1 with their intervals."""
    rows = []
    for name, tp, fp, fn in zip(scores.task.classes, *tp_fp_fn(scores.confusion), strict=True):
        jaccard = proportion(tp, tp + fp + fn)
        f1 = jaccard and [2 * share / (1 + share) for share in jaccard]  # F1 rises with the Jaccard index
        precision = proportion(tp, tp + fp)
        recall = proportion(tp, tp + fn)
        rows.append({"name": name, "images": tp + fn, "scores": (precision, recall, f1)})
    return rows


def calibration_error(scores: Scores) -> float:
    """Return the expected calibration error over 15 bins (Guo et al., ICML 2017)."""
    confidence = torch.from_numpy(scores.confidence)
    correct = torch.from_numpy(scores.correct).long()
    return binary_calibration_error(confidence, correct, n_bins=15).item()


def list_mistakes(scores: Scores, dataset: Dataset) -> pd.DataFrame:
    """Return file, true label, prediction and confidence of the images with a mistake, the most confident first."""
    confidence = np.where(scores.correct, -1.0, scores.confidence)
    if scores.task.multilabel:
        confidence = confidence.max(axis=1)  # of the wrong answers for an image
    table = predictions_table(scores, dataset)[["file", "true", "predicted"]].assign(confidence=confidence)
    mistakes = table[confidence >= 0]
    return mistakes.sort_values("confidence", ascending=False, kind="stable")


def add_thumbnails(mistakes: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Return the table with a column of small JPEGs."""
    thumbnails = []
    for i in mistakes.index:
        image = dataset[i][0].convert("RGB")
        image.thumbnail((200, 200))
        jpeg = BytesIO()
        image.save(jpeg, "JPEG", quality=80)
        thumbnails.append(data_url(jpeg.getvalue(), "jpeg"))
    return mistakes.assign(thumbnail=thumbnails)


def encode_svg(figure: Figure) -> str:
    """Return a figure as a data URL."""
    svg = BytesIO()
    figure.savefig(svg, format="svg")
    return data_url(svg.getvalue(), "svg+xml")


def data_url(image: bytes, kind: str) -> str:
    """Return an encoded image as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def changed_options(config: Config) -> set[str]:
    """Return the names of the options that differ from their defaults, except those filled in by the run."""
    changed = set()
    for field in fields(Config):
        filled_in = field.default is None and field.name not in NO_DEFAULT
        if not filled_in and getattr(config, field.name) != field.default:
            changed.add(field.name)
    return changed
