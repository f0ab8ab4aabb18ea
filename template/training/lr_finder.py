"""Learning-rate range test (Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017): `--find-lr`."""

import copy
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from poutyne import Model

from core.environment import world_size
from core.errors import UserError
from evaluation import plots

logger = logging.getLogger(__name__)


def find_lr(model: Model, loader: Iterable, file: Path, steps: int = 100) -> float:
    """Train with learning rates that rise from 1e-6 to 1, and restore network and optimizer.

    Args:
        model: with an optimizer; the groups of its parameters keep the ratio of their learning rates.
        loader: of training batches.
        file: gets the plot.
        steps: number of batches.

    Returns:
        A tenth of the learning rate with the lowest loss: the loss still falls fast there, and is far from exploding.

    Raises:
        UserError: there are several processes.
    """
    if world_size() > 1:
        raise UserError("--find-lr works in one process: find the learning rate without torchrun, then train with it")
    before = copy.deepcopy((model.network.state_dict(), model.optimizer.state_dict()))
    groups = model.optimizer.param_groups
    ratios = [group["lr"] / groups[0]["lr"] for group in groups]
    lrs = np.geomspace(1e-6, 1, steps)
    losses: list[float] = []
    average = 0.0
    with torch.random.fork_rng():
        for lr, (images, targets) in zip(lrs, repeat(loader), strict=False):
            for group, ratio in zip(groups, ratios, strict=True):
                group["lr"] = lr * ratio
            loss = model.train_on_batch(images, targets, return_dict_format=True)["loss"]
            average = 0.9 * average + 0.1 * loss
            losses.append(average / (1 - 0.9 ** (len(losses) + 1)))
            if len(losses) >= 10 and not losses[-1] < 4 * min(losses):  # it has exploded, or is NaN
                break
    for metric in model.loss_function, *model.epoch_metrics:
        metric.reset()
    model.network.load_state_dict(before[0])
    model.optimizer.load_state_dict(before[1])
    lowest = np.argmin(np.nan_to_num(losses, nan=np.inf))
    suggestion = float(lrs[lowest] / 10)
    plots.rates(lrs[: len(losses)].tolist(), losses, suggestion).savefig(file)
    logger.info("suggested: --lr %.1g (%s)", suggestion, file)
    return suggestion


def repeat(loader: Iterable) -> Iterator[Any]:
    """Yield the batches of one epoch after another."""
    while True:
        yield from loader
