"""Progress bar of each epoch, and a line with its results."""

import logging
from dataclasses import dataclass

from poutyne import Callback, EarlyStopping

from core.progress import progress_bar

logger = logging.getLogger(__name__)


@dataclass
class ProgressBar(Callback):
    """Progress bar that fits into 80 columns, which Poutyne's own does not.

    It must come after the callbacks that cut the learning rate or stop the training, since it reports what they did.
    """

    stop: EarlyStopping

    @property
    def lr(self) -> float:
        return self.model.optimizer.param_groups[0]["lr"]

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        self.name = f"epoch {epoch_number}/{self.params['epochs']}"
        n_batches = self.params["steps"] + self.params.get("valid_steps", 0)
        self.bar = progress_bar(self.name, total=n_batches, unit="batches")

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        self.last_lr = self.lr
        self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)
        self.bar.update()

    def on_valid_batch_end(self, batch_number: int, logs: dict) -> None:
        self.bar.update()

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        self.bar.close()
        results = "  ".join(f"{name} {logs[name]:.4g}" for name in ("loss", "acc", "val_loss", "val_acc"))
        logger.info("%s  %s  %.1f s", self.name, results, logs["time"])
        monitor = self.stop.monitor
        if self.lr < self.last_lr:  # after the last batch, so ReduceLROnPlateau did it
            logger.info(
                "learning rate cut from %.3g to %.3g: %s has stopped improving",
                self.last_lr,
                self.lr,
                monitor,
            )
        if self.stop.stopped_epoch:
            reason = f"{monitor} has not improved since epoch {epoch_number - self.stop.wait}"
            logger.info(
                "stopped early after epoch %d: %s (--patience %d)", epoch_number, reason, self.stop.patience
            )
        elif epoch_number == self.params["epochs"]:
            logger.info("training ended: all %d epochs are done", epoch_number)
