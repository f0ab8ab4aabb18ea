"""Losses of all processes, when several train together."""

from poutyne import Callback

from core.processes import broadcast_parameters, weighted_all_reduce


class DistributedMetrics(Callback):
    """Replacement of each process's losses by those of all images, so that all processes decide the same.

    It must be the first callback, since it changes the logs of the others. torchmetrics synchronizes the metrics.
    """

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        self.n_images = {"loss": 0, "val_loss": 0}  # not the same in each process

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        self.n_images["loss"] += logs["size"]

    def on_valid_begin(self, logs: dict) -> None:
        # BatchNorm statistics differ between the processes; all validate with those of rank 0.
        broadcast_parameters(self.model.network, buffers_only=True)

    def on_valid_batch_end(self, batch_number: int, logs: dict) -> None:
        self.n_images["val_loss"] += logs["size"]

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        sums = {name: float(logs[name]) * n for name, n in self.n_images.items()}
        logs.update(weighted_all_reduce(sums, self.n_images))
