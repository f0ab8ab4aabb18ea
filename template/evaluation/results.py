"""What a run leaves for people: pictures and figures before the training and after it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from poutyne import Model

from config import Config
from core.files import write_json
from core.processes import rank
from core.stopwatch import Stopwatch
from core.task import load_task
from data import DataLoaders
from evaluation import plots
from evaluation.calibration import fit_answers
from evaluation.report import render_report
from evaluation.scoring import MONITOR, best_epoch, predict, read_log, score, write_predictions
from losses import get_loss
from models import summarize
from Project import Run

logger = logging.getLogger(__name__)


def write_inputs(run: Run, network: torch.nn.Module, loaders: DataLoaders, image_size: int) -> None:
    """Show what will be trained on what, before it is: train_batch.png, val_batch.png and model.txt.

    Args:
        run: its folder gets them, from one process.
        network: that will be trained.
        loaders: of training and validation.
        image_size: side of the images, in pixels.
    """
    if rank() > 0:
        return
    for name, dl in ("train_batch.png", loaders.train), ("val_batch.png", loaders.val):
        plots.batch_grid(dl).savefig(run / name, bbox_inches="tight")
    summary = summarize(network, image_size)
    (run / "model.txt").write_text(summary, encoding="utf-8")
    logger.info("%s", summary)


def write_results(
    run: Run,
    model: Model,
    config: Config,
    loaders: DataLoaders,
    trackers: Sequence[Any],
    stopwatch: Stopwatch,
    first_epoch: int,
) -> None:
    """Score the best weights and write the final metrics, the predictions, the plots and the page.

    Args:
        run: its folder gets metrics.json, predictions.csv, curves.png, confusion_matrix.png and report.html; and
            calibration.json, or thresholds.json where an image can have several classes; and times.json.
        model: with the best weights.
        config: loss, and max_error: the share of all images that predict.py may answer wrongly.
        loaders: of validation and test set, which are scored.
        trackers: get the metrics too.
        stopwatch: of the command, with a lap "training" behind it.
        first_epoch: that this command trained; the epochs before are not part of its time.
    """
    loss, test_dl = get_loss(config.loss), loaders.test
    of_val, of_test = predict(model, loaders.val), predict(model, test_dl)
    if rank() > 0:
        return
    log = read_log(run)
    task, calibration = fit_answers(run, load_task(run), *of_val, config.max_error)
    val, test = (score(task, *predicted, loss, calibration.temperature) for predicted in (of_val, of_test))
    best = best_epoch(log)
    metrics = {"best_epoch": best, "epochs": len(log["epoch"]), **val.named("val"), **test.named("test")}
    write_json(run.metrics, metrics)
    write_predictions(run.predictions, test, test_dl)
    plots.curves(log, best, MONITOR).savefig(run / "curves.png")
    plots.confusion(test.confusion, task.classes).savefig(run / "confusion_matrix.png")
    stopwatch.lap("scoring and report")
    seconds = split_training(stopwatch.seconds, log, first_epoch)
    write_json(run.times, {"resumed_after": first_epoch - 1, "seconds": seconds})
    render_report(run, test, test_dl.dataset.dataset, "test", run.report)
    for tracker in trackers:
        tracker.log_results(metrics, test.confusion, task.classes)
    logger.info("best epoch: %d of %d\nvalidation: %s\ntest:       %s", best, len(log["epoch"]), val, test)
    if calibration.max_error is not None:
        level = logging.WARNING if calibration.threshold is None else logging.INFO
        logger.log(level, "%s", calibration.promise)
    logger.info("All of it is in %s; open %s", run.folder, run.report.name)


def split_training(seconds: Mapping[str, float], log: Mapping[str, list[float]], first_epoch: int) -> dict[str, float]:
    """Split the time of the training by what log.csv says of its epochs; what is left was spent in callbacks.

    Args:
        seconds: of each part of the command, one of them "training".
        log: columns of log.csv.
        first_epoch: the first that is part of this training; there may be none.

    Returns:
        Seconds of each part, with the same sum.
    """
    epochs = [i for i, epoch in enumerate(log["epoch"]) if epoch >= first_epoch]
    within = {label: sum(log[column][i] for i in epochs) for column, label in plots.TIMES.items()}
    within["callbacks"] = seconds["training"] - sum(within.values())
    parts: dict[str, float] = {}
    for name, spent in seconds.items():
        parts |= within if name == "training" else {name: spent}
    return parts
