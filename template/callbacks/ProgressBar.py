"""A progress bar within the epoch; after it a line, and the reason where the learning rate is cut or training ends."""

import logging

from poutyne import Callback, EarlyStopping

from core.progress import progress_bar

logger = logging.getLogger(__name__)


class ProgressBar(Callback):
    """Poutyne's own bar is wider than a terminal of 80 columns and then leaves a line at every step; this one fits.

    Must come after the callbacks that cut the learning rate or end the training.
    """

    def __init__(self, stop: EarlyStopping) -> None:
        """Take the callback that ends the training early."""
        super().__init__()
        self.stop = stop

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Opens the bar."""
        self.name = f"epoch {epoch_number}/{self.params['epochs']}"
        steps = self.params["steps"] + self.params.get("valid_steps", 0)
        self.bar = progress_bar(self.name, total=steps, unit="batches")

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        """One step further."""
        self.lr = self.model.optimizer.param_groups[0]["lr"]
        self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)
        self.bar.update()

    def on_valid_batch_end(self, batch_number: int, logs: dict) -> None:
        """One step further."""
        self.bar.update()

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        """Replaces the bar by what the epoch has brought."""
        self.bar.close()
        figures = "  ".join(f"{name} {logs[name]:.4g}" for name in ("loss", "acc", "val_loss", "val_acc"))
        logger.info("%s  %s  %.1f s", self.name, figures, logs["time"])
        lr = self.model.optimizer.param_groups[0]["lr"]
        if lr < self.lr:  # after the last batch, so it was the plateau schedule
            logger.info("learning rate cut from %.3g to %.3g: %s has stopped improving", self.lr, lr, self.stop.monitor)
        if self.stop.stopped_epoch:
            best = f"{self.stop.monitor} has not improved since epoch {epoch_number - self.stop.wait}"
            logger.info("stopped early after epoch %d: %s (--patience %d)", epoch_number, best, self.stop.patience)
        elif epoch_number == self.params["epochs"]:
            logger.info("training ended: all %d epochs are done", epoch_number)
