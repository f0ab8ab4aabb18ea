"""Metrics, pictures of predictions and the confusion matrix to TensorBoard, in the run's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from poutyne import TensorBoardLogger
from torch.utils.data import DataLoader

from core.task import load_task
from evaluation import plots
from Project import Run


class TensorBoardCallback(TensorBoardLogger):
    """Poutyne's logger, with the loss of each batch and with pictures."""

    def __init__(self, run: Run, env_file: Path, val_dl: DataLoader) -> None:
        """Opens the log; a resumed run adds to it.

        Args:
            run: gets a folder `tensorboard/`; look at it with `tensorboard --logdir checkpoint`.
            env_file: not needed.
            val_dl: some of its pictures are shown with what the network takes them for.
        """
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(SummaryWriter(str(run / "tensorboard")), split_train_val=True)
        size = len(val_dl.dataset)
        chosen = [val_dl.dataset[i * size // min(16, size)] for i in range(min(16, size))]
        self.images = torch.stack([image for image, _ in chosen])
        self.task = load_task(run)
        self.names = [self.task.describe(torch.as_tensor(label).tolist()) for _, label in chosen]

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        """The batch's metrics, under its number in the whole training."""
        step = (self.epoch - 1) * self.params["steps"] + batch_number
        for name, value in logs.items():
            if name not in ("batch", "size", "time"):
                self.writer.add_scalar(f"batch/{name}", value, step)

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Remembers which epoch it is."""
        self.epoch = epoch_number

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        """The epoch's metrics, and what the network takes some pictures for."""
        super().on_epoch_end(epoch_number, logs)
        logits = torch.from_numpy(self.model.predict_on_batch(self.images))
        predicted = self.task.decode(self.task.activate(logits)).tolist()
        guesses = [self.task.describe(label) for label in predicted]
        titles = [true if true == guess else f"{true}→{guess}" for true, guess in zip(self.names, guesses, strict=True)]
        self.writer.add_figure("predictions", plots.image_grid(self.images, titles), epoch_number)

    def log_results(self, metrics: dict[str, Any], confusion: np.ndarray, classes: Sequence[str]) -> None:
        """The final figures and the confusion matrix; see `CometCallback`."""
        for name, value in metrics.items():
            self.writer.add_scalar(f"final/{name}", value)
        self.writer.add_figure("confusion", plots.confusion(confusion, classes))

    def _on_train_end_write(self, logs: dict) -> None:
        """Poutyne closes the log here; the results are still to come."""

    def end(self) -> None:
        """Closes the log."""
        self.writer.close()
