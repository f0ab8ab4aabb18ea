"""Which learning rate suits: the rate rises from batch to batch, and the loss tells (`main.py --find-lr`)."""

import copy
import logging
import math
from pathlib import Path

import torch
from poutyne import Callback, Model
from torch.utils.data import DataLoader

from core.errors import UserError
from core.processes import world_size
from evaluation import plots

logger = logging.getLogger(__name__)


class RisingRate(Callback):
    """Raises all rates by the same factor after each batch, and remembers the smoothed loss."""

    def __init__(self, lowest: float, highest: float, steps: int) -> None:
        """Says from where to where.

        Args:
            lowest, highest: the first and the last rate of the first parameter group.
            steps: batches in between.
        """
        super().__init__()
        self.rates = [lowest * (highest / lowest) ** (i / (steps - 1)) for i in range(steps)]
        self.losses: list[float] = []
        self.average = 0.0

    def on_train_batch_begin(self, batch_number: int, logs: dict) -> None:
        """Sets the rate; when the loss has exploded or all rates were tried, one that changes nothing."""
        groups = self.model.optimizer.param_groups
        self.start = getattr(self, "start", [group["lr"] for group in groups])
        rate = self.rates[len(self.losses)] if self.going else 0.0
        for group, start in zip(groups, self.start, strict=True):
            group["lr"] = rate * start / self.start[0]

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        """Adds the loss to its running average."""
        if self.going and math.isfinite(logs["loss"]):
            self.average = 0.9 * self.average + 0.1 * logs["loss"]
            self.losses.append(self.average / (1 - 0.9 ** (len(self.losses) + 1)))
        elif self.going:
            self.losses.append(math.inf)

    @property
    def going(self) -> bool:
        """Whether there is more to try."""
        return len(self.losses) < len(self.rates) and (len(self.losses) < 10 or self.losses[-1] < 4 * min(self.losses))


def find_lr(model: Model, loader: DataLoader, file: Path, steps: int = 100) -> float:
    """Tries rates from 1e-6 to 1 (Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017).

    Network and optimizer are afterwards as they were before.

    Args:
        model: with an optimizer.
        loader: of training batches.
        file: gets the curve.
        steps: batches to try.

    Returns:
        A tenth of the rate at which the loss was lowest: there it still falls fast, and safely.
    """
    if world_size() > 1:
        raise UserError("--find-lr works in one process: find the rate without torchrun, then train with it")
    before = copy.deepcopy((model.network.state_dict(), model.optimizer.state_dict()))
    rising = RisingRate(1e-6, 1.0, steps)
    per_epoch = min(steps, len(loader))
    epochs = math.ceil(steps / per_epoch)
    with torch.random.fork_rng():
        model.fit_generator(loader, epochs=epochs, steps_per_epoch=per_epoch, callbacks=[rising], verbose=False)
    model.network.load_state_dict(before[0])
    model.optimizer.load_state_dict(before[1])
    rates = rising.rates[: len(rising.losses)]
    lowest = min(range(len(rates)), key=lambda i: rising.losses[i])
    suggestion = rates[lowest] / 10
    plots.rates(rates, rising.losses, suggestion).savefig(file)
    logger.info("suggested: --lr %.1g (%s)", suggestion, file)
    return suggestion
