"""Logger to TensorBoard; to view it, type `tensorboard --logdir checkpoint`."""

from pathlib import Path

import numpy as np
import torch
from poutyne import TensorBoardLogger
from torch.utils.data import DataLoader, Subset

from core.task import load_task
from evaluation import plots
from Project import Run


class TensorBoardCallback(TensorBoardLogger):
    """Poutyne's logger, with the loss of each batch and with predictions for some validation images."""

    def __init__(self, run: Run, env_file: Path, val_dl: DataLoader) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(SummaryWriter(str(run / "tensorboard")), split_train_val=True)
        dataset = val_dl.dataset
        indices = np.linspace(0, len(dataset), min(16, len(dataset)), endpoint=False, dtype=int)
        samples = Subset(dataset, indices.tolist())
        self.images, self.labels = next(iter(DataLoader(samples, len(samples), generator=torch.Generator())))
        self.task = load_task(run)

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        step = (self.epoch_number - 1) * self.params["steps"] + batch_number
        self.writer.add_scalar("batch/loss", logs["loss"], step)

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        super().on_epoch_end(epoch_number, logs)
        logits = torch.from_numpy(self.model.predict_on_batch(self.images))
        predicted = self.task.decode(self.task.activate(logits))
        titles = []
        for label, prediction in zip(self.labels.tolist(), predicted.tolist(), strict=True):
            title = self.task.describe(label)
            if prediction != label:
                title += "→" + self.task.describe(prediction)
            titles.append(title)
        self.writer.add_figure("predictions", plots.image_grid(self.images, titles), epoch_number)

    def log_results(self, metrics: dict[str, float], confusion: np.ndarray, classes: list[str]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(f"final/{name}", value)
        self.writer.add_figure("confusion", plots.confusion(confusion, classes))

    def _on_train_end_write(self, logs: dict) -> None:
        pass  # Poutyne would close the writer here, before the final results are logged

    def end(self) -> None:
        self.writer.close()
