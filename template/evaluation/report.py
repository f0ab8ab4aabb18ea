"""`report.html`: what came of a run, on one page that needs nothing else."""

import base64
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.data import Dataset

from config import Config
from core.cli import option_name
from core.files import atomic_write, read_json
from core.task import Task
from data.splits import get_file_names
from evaluation import plots
from evaluation.calibration import (
    Calibration,
    calibration_bins,
    count_answers,
    f1_interval,
    load_calibration,
    wilson_interval,
)
from evaluation.scoring import MONITOR, Scores, best_epoch, read_log, tp_fp_fn
from Project import Run

N_MISTAKES = 24  # in the gallery


def render_report(run: Run, scores: Scores, dataset: Dataset, part: str, path: Path) -> None:
    """Writes the page.

    Args:
        run: with its log, options and what was looked at before.
        scores: of the images that the page is about.
        dataset: these images, as they are; for the gallery of mistakes.
        part: what they are called: "test".
        path: the HTML file.
    """
    classes, calibration = read_json(run.classes), load_calibration(run)
    described, log = read_json(run.config), read_log(run)
    sure = sureness(scores, calibration)
    page = {
        "name": run.folder.name,
        "classes": classes,
        "options": described["options"],
        "scored": f"Scored on {len(scores.labels)} {part} images on {time.strftime('%Y-%m-%d')}",
        "cards": [*cards(scores), *([{"what": "sure enough", **sure[0]}] if sure else [])],
        "best_epoch": best_epoch(log),
        "epochs": len(log["epoch"]),
        "monitor": MONITOR,
        "per_class": per_class(scores.confusion, classes),
        "confused": confused(scores),
        "confusion_width": 320 if scores.task.multilabel else plots.confusion_width(len(classes)),
        "mistakes": mistakes(scores, dataset),
        "n_wrong": int(scores.wrong.sum()),
        "n_scored": len(scores.labels),
        "calibration": calibration,
        "calibration_error": calibration_bins(*scores.claims).error,
        "sure": sure[1] if sure else "",
        "batch": encoded((run / "train_batch.png").read_bytes(), "png") if (run / "train_batch.png").exists() else "",
        "times": times(run),
        "all_options": options(described["options"]),
        "versions": ", ".join(f"{name} {value}" for name, value in described["versions"].items() if value)
        + (f"; commit {described['git_commit']}" if described.get("git_commit") else ""),
        "figures": {name: render_light_and_dark(draw) for name, draw in figures(run, scores).items()},
        **images_checked(run),
    }
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    with atomic_write(path) as file:
        file.write(environment.get_template("report.html.jinja").render(page))


def figures(run: Run, scores: Scores) -> dict[str, Callable[[], Figure]]:
    """The pictures of the page, each as a function that draws it.

    Args:
        run: with its log.
        scores: of the images that they are about.
    """
    log, calibration, classes = read_log(run), load_calibration(run), read_json(run.classes)
    p, right = scores.claims
    drawn: dict[str, Callable[[], Figure]] = {
        "curves": partial(plots.curves, log, best_epoch(log), MONITOR),
        "confusion": partial(plots.confusion, scores.confusion, classes),
        "reliability": partial(plots.reliability, calibration_bins(p, right)),
        "times": partial(plots.times, log),
    }
    if calibration.max_error is not None:
        drawn["risk_coverage"] = partial(plots.risk_coverage, p, right, calibration.threshold)
    return drawn


def cards(scores: Scores) -> list[dict[str, str]]:
    """The figures at the top."""
    right, n = int((scores.labels == scores.predicted).sum()), scores.labels.size
    low, high = wilson_interval(right, n)
    found = [
        {
            "what": "accuracy",
            "value": f"{100 * right / n:.1f} %",
            "more": f"{right} of {n}; {100 * low:.0f}–{100 * high:.0f} % at 95 %",
        },
        {"what": "macro F1", "value": f"{scores.metrics['f1']:.3f}", "more": "the mean over the classes that occur"},
    ]
    if "exact_match" in scores.metrics:
        exact = f"{100 * scores.metrics['exact_match']:.1f} %"
        found.append({"what": "images without a mistake", "value": exact, "more": f"of {len(scores.labels)}"})
    return found


def sureness(scores: Scores, calibration: Calibration) -> tuple[dict[str, str], str] | None:
    """What `predict.py` would have answered, as a card and as a sentence; None where it always answers."""
    if calibration.max_error is None:
        return None
    if calibration.threshold is None:
        return {"value": "–", "more": "the validation set cannot tell"}, calibration.promise
    p, right = scores.claims
    kept = p >= calibration.threshold
    n_kept, wrong = int(kept.sum()), int((kept & ~right).sum())
    rule = f"Below a probability of {calibration.threshold:.3f} predict.py says unsure."
    if not calibration.threshold:
        rule = "predict.py may always answer."
    return (
        {
            "value": f"{100 * kept.mean():.0f} %",
            "more": f"{wrong} of these {n_kept} wrong ({100 * wrong / max(n_kept, 1):.1f} %); "
            f"{100 * wrong / len(p):.1f} % of all images",
        },
        f"{rule} {calibration.promise} (Conformal risk control, Angelopoulos et al., 2024.) Here, "
        f"{count_answers(len(p), n_kept, wrong)}.",
    )


def per_class(confusion: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """For each class how many images it has, and precision, recall and F1, each with its interval."""
    rows = []
    for name, tp, fp, fn in zip(classes, *(counts.tolist() for counts in tp_fp_fn(confusion)), strict=True):
        precision = (tp / (tp + fp), *wilson_interval(tp, tp + fp)) if tp + fp else None
        recall = (tp / (tp + fn), *wilson_interval(tp, tp + fn)) if tp + fn else None
        f1 = (2 * tp / (2 * tp + fp + fn), *f1_interval(tp, fp, fn)) if tp + fp + fn else None
        rows.append({"name": name, "support": tp + fn, "figures": [precision, recall, f1]})
    return rows


def confused(scores: Scores, at_most: int = 10) -> list[tuple[str, str, int]]:
    """Return true label, prediction and number of images, for what is mistaken most often."""
    pairs = Counter(
        (describe(scores.task, scores.labels[i]), describe(scores.task, scores.predicted[i]))
        for i in np.flatnonzero(scores.wrong)
    )
    return [(true, said, n) for (true, said), n in pairs.most_common(at_most)]


def mistakes(scores: Scores, dataset: Dataset) -> list[dict[str, Any]]:
    """The images that were mistaken most surely, as thumbnails."""
    files, found = get_file_names(dataset), []
    confidence = scores.mistake_confidence
    order = np.argsort(-confidence, kind="stable")
    for i in order[: min(N_MISTAKES, int(scores.wrong.sum()))].tolist():
        said, true = (describe(scores.task, labels[i]) for labels in (scores.predicted, scores.labels))
        p = float(confidence[i])
        found.append({"file": files[i], "said": said, "true": true, "p": p, "picture": thumbnail(dataset[i][0])})
    return found


def describe(task: Task, label: np.ndarray) -> str:
    """Return the names of the classes of an image, for people."""
    return task.describe(label.tolist()) or "nothing"


def thumbnail(image: Image.Image, side: int = 200) -> str:
    """A small JPEG as a data address."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    content = BytesIO()
    small.save(content, "JPEG", quality=80)
    return encoded(content.getvalue(), "jpeg")


def render_light_and_dark(draw: Callable[[], Figure]) -> dict[str, str]:
    """A figure for a light page and for a dark one, as data addresses."""
    pictures = {}
    for light, style in (("light", "default"), ("dark", "dark_background")):
        content = BytesIO()
        with mpl.style.context(style):
            draw().savefig(content, format="svg", transparent=True)
        pictures[light] = encoded(content.getvalue(), "svg+xml")
    return pictures


def encoded(content: bytes, kind: str) -> str:
    """A picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def times(run: Run) -> dict[str, Any] | None:
    """Read what the command that trained spent its time on: seconds and per cent; None where it has not ended."""
    if not run.times.exists():
        return None
    found = read_json(run.times)
    seconds = np.array(list(found["seconds"].values()))
    ends = np.round(100 * seconds.cumsum() / seconds.sum(), 1)  # rounded one by one, shares might not add up to 100
    shares = np.diff(ends, prepend=0)
    parts = list(zip(found["seconds"], seconds, shares, strict=True))
    return {"total": seconds.sum(), "resumed_after": found["resumed_after"], "parts": parts}


def images_checked(run: Run) -> dict[str, Any]:
    """Images of each class in each split, and what was wrong with them before the training."""
    if not run.check.exists():
        return {"counts": {}, "warnings": []}
    found = json.loads(run.check.read_text(encoding="utf-8"))
    warnings = []
    for name, what in (("leaks", "In more than one split"), ("label_conflicts", "Under different labels")):
        if groups := found[name]:
            example = " = ".join(f"{item['file']} ({item['split']}, {item['label']})" for item in groups[0][:3])
            warnings.append(f"{what}: {len(groups)}, such as {example}.")
    warnings += [f"No picture in {part}: {', '.join(names)}." for part, names in found["missing_classes"].items()]
    if found["imbalance"] > 3:
        warnings.append(f"The largest class has {found['imbalance']:.1f} times the training images of the smallest.")
    return {"counts": found["counts"], "warnings": warnings}


NOT_FILLED_IN = (
    "grad_clip_norm",
    "weight_decay",
    "fold",
    "unfreeze_epoch",
    "data_dir",
)  # options that stay None if not given


def options(given: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Name, value and whether it is not the default, of each option."""
    defaults = Config(epochs=given.get("epochs", Config.epochs))
    rows = []
    for field in fields(Config):
        if field.name in given:
            value, default = given[field.name], getattr(defaults, field.name)
            plain = list(default) if isinstance(default, tuple) else default
            shown = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
            left_open = default is None and field.name not in NOT_FILLED_IN  # the run has filled it in, or the user
            rows.append((option_name(field.name), shown, value != plain and not left_open))
    return rows
