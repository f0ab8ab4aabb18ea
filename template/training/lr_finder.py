"""Learning-rate range test (Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017): `--find-lr`."""

import copy
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from poutyne import Model

from core.environment import world_size
from core.errors import UserError
from evaluation import plots

logger = logging.getLogger(__name__)


def find_lr(model: Model, loader: Iterable, file: Path, steps: int = 100) -> float:
    """Train with learning rates that rise from 1e-6 to 1, plot the losses, and restore network and optimizer.

    Returns:
        A tenth of the learning rate with the lowest loss: the loss still falls fast there, and is far from exploding.
    """
    if world_size() > 1:
        raise UserError(
            "--find-lr works in one process: find the learning rate without torchrun, then train with it"
        )
    before = copy.deepcopy((model.network.state_dict(), model.optimizer.state_dict()))
    groups = model.optimizer.param_groups
    ratios = [group["lr"] / groups[0]["lr"] for group in groups]
    lrs = np.geomspace(1e-6, 1, steps).tolist()
    losses: list[float] = []
    with torch.random.fork_rng():
        for lr, (images, targets) in zip(lrs, repeat(loader), strict=False):
            for group, ratio in zip(groups, ratios, strict=True):
                group["lr"] = lr * ratio
            losses.append(model.train_on_batch(images, targets, return_dict_format=True)["loss"])
            smooth = pd.Series(losses).ewm(alpha=0.1).mean()
            exploded = len(losses) >= 10 and smooth.iloc[-1] > 4 * smooth.min()
            if exploded or not math.isfinite(losses[-1]):
                break
    for metric in model.loss_function, *model.epoch_metrics:
        metric.reset()
    model.network.load_state_dict(before[0])
    model.optimizer.load_state_dict(before[1])
    suggestion = lrs[smooth.argmin()] / 10
    plots.rates(lrs[: len(losses)], smooth.tolist(), suggestion).savefig(file)
    logger.info("suggested: --lr %.1g (%s)", suggestion, file)
    return suggestion


def repeat(loader: Iterable) -> Iterator[Any]:
    """Yield the batches of one epoch after another."""
    while True:
        yield from loader
