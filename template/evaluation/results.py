"""Inputs and results of a run, written into its folder."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd
import torch
from poutyne import Model

from config import Config
from core.environment import rank
from core.files import atomic_write, write_json
from core.run_folder import command, shorten
from core.stopwatch import Stopwatch
from core.task import load_task
from data import DataLoaders
from evaluation import plots
from evaluation.calibration import Calibration, best_thresholds, calibrate
from evaluation.report import render_report
from evaluation.scoring import best_epoch, predict, predictions_table, read_log, score
from losses import get_loss
from models import summarize
from Project import Run

logger = logging.getLogger(__name__)

# Columns of log.csv with the seconds of an epoch (see callbacks/EpochLogger.py), and their names in the report.
TIMES = {"data_time": "waiting for images", "train_time": "training", "val_time": "validation"}


def write_inputs(run: Run, network: torch.nn.Module, loaders: DataLoaders, image_size: int) -> None:
    """Write train_batch.png, val_batch.png and model.txt from one process; log the size of the network."""
    if rank() > 0:
        return
    plots.batch_grid(loaders.train).savefig(run / "train_batch.png", bbox_inches="tight")
    plots.batch_grid(loaders.val).savefig(run / "val_batch.png", bbox_inches="tight")
    summary = summarize(network, image_size)
    (run / "model.txt").write_text(summary, encoding="utf-8")
    logger.info("%s", summary.splitlines()[-1])


def write_results(
    run: Run,
    model: Model,
    config: Config,
    loaders: DataLoaders,
    trackers: Sequence[Any],
    stopwatch: Stopwatch,
    first_epoch: int,
) -> None:
    """Score the model on validation and test set; write calibration, metrics, predictions, plots, times and report.

    Args:
        stopwatch: of this command, with a lap "training".
        first_epoch: the first epoch that this command trained.
    """
    loss = get_loss(config.loss)
    val_logits, val_labels = predict(model, loaders.val)
    test_logits, test_labels = predict(model, loaders.test)
    if rank() > 0:
        return
    task = load_task(run)
    calibration = Calibration()
    if task.multilabel:
        task = replace(task, thresholds=best_thresholds(val_logits, val_labels, task.classes))
        write_json(run.thresholds, task.thresholds)
    else:
        calibration = calibrate(val_logits, val_labels, config.max_error)
        write_json(run.calibration, asdict(calibration))
    val = score(task, val_logits, val_labels, loss, calibration.temperature)
    test = score(task, test_logits, test_labels, loss, calibration.temperature)

    log = read_log(run)
    best = best_epoch(log)
    metrics = {"best_epoch": best, "epochs": len(log), **val.named("val"), **test.named("test")}
    test_set = loaders.test.dataset.dataset  # untransformed
    write_json(run.metrics, metrics)
    with atomic_write(run.predictions) as file:
        predictions_table(test, test_set).to_csv(file, index=False, float_format="%.6f")
    plots.curves(log, best).savefig(run / "curves.png")
    plots.confusion(test.confusion, task.classes).savefig(run / "confusion_matrix.png")
    for tracker in trackers:
        tracker.log_results(metrics, test.confusion, task.classes)
    logger.info("best epoch: %d of %d\nvalidation: %s\ntest:       %s", best, len(log), val, test)
    if calibration.max_error is not None:
        level = logging.WARNING if calibration.confidence_threshold is None else logging.INFO
        logger.log(level, "%s", calibration.guarantee)
    logger.info("The results are in %s", run.folder)
    stopwatch.lap("scoring and report")
    write_times(run, stopwatch.seconds, log, first_epoch)
    render_report(run, test, test_set, "test")
    logger.info("new images: %s", command("predict.py", shorten(run.folder), "photo.jpg"))


def write_times(run: Run, seconds: dict[str, float], log: pd.DataFrame, first_epoch: int) -> None:
    """Write times.json: the seconds of this command, those of "training" by what its epochs spent them on."""
    trained = log[log["epoch"] >= first_epoch]
    parts = trained[list(TIMES)].sum().rename(TIMES)
    callbacks = seconds["training"] - parts.sum()
    seconds = {**seconds, **parts, "callbacks": callbacks}
    write_json(run.times, {"resumed_after": first_epoch - 1, "seconds": seconds})
