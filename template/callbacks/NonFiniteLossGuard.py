"""Ends a training whose loss is no number any more, before anything good is overwritten."""

import math

from poutyne import Callback

from core.errors import RunError
from Project import Run


class NonFiniteLossGuard(Callback):
    """Checks the loss of each batch. Must come before the callbacks that write."""

    def __init__(self, run: Run) -> None:
        """Takes the run, whose best weights stay."""
        super().__init__()
        self.run = run

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Remembers which epoch it is."""
        self.epoch = epoch_number

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        """Checks a training batch."""
        self.check(logs["loss"], f"batch {batch_number}")

    def on_valid_batch_end(self, batch_number: int, logs: dict) -> None:
        """Checks a validation batch."""
        self.check(logs["val_loss"], f"validation batch {batch_number}")

    def check(self, loss: float, where: str) -> None:
        """Ends the training if there is reason to.

        Raises:
            RunError: the loss is NaN or infinite; says where and what helps.
        """
        if not math.isfinite(loss):
            kept = f"; the best weights so far stay in {self.run.best}" if self.run.best.is_file() else ""
            advice = "start again with a lower --lr or with --grad-clip-norm 1"
            raise RunError(f"the loss is {loss} in epoch {self.epoch}, {where}: {advice}{kept}")
