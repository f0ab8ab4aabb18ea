"""A progress bar within the epoch, a line after it."""

import logging

from poutyne import Callback
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)


class Progress(Callback):
    """Poutyne's own bar is wider than a terminal of 80 columns and then leaves a line at every step; this one fits."""

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Opens the bar, on a terminal or in a notebook only."""
        self.name = f"epoch {epoch_number}/{self.params['epochs']}"
        steps = self.params["steps"] + self.params.get("valid_steps", 0)
        self.bar = tqdm(total=steps, desc=self.name, leave=False, dynamic_ncols=True, disable=None)

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        """One step further."""
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
