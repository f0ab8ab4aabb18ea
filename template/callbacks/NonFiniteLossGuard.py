"""End of the training when the loss becomes NaN or infinite."""

import math
from dataclasses import dataclass

from poutyne import Callback

from core.errors import RunError
from Project import Run


@dataclass
class NonFiniteLossGuard(Callback):
    """Check of the loss of each batch; it must come before the callbacks that write checkpoints."""

    run: Run

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        self.epoch = epoch_number

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        self.check(logs["loss"], f"batch {batch_number}")

    def on_valid_batch_end(self, batch_number: int, logs: dict) -> None:
        self.check(logs["val_loss"], f"validation batch {batch_number}")

    def check(self, loss: float, batch: str) -> None:
        if math.isfinite(loss):
            return
        message = f"the loss is {loss} in epoch {self.epoch}, {batch}: try a lower --lr or --grad-clip-norm 1"
        if self.run.best.is_file():
            message += f"; the best weights so far are in {self.run.best}"
        raise RunError(message)
