"""Several processes, one training: the same figures in all of them, and so the same decisions."""

from collections import Counter

from poutyne import Callback

from core.processes import broadcast_parameters, weighted_all_reduce


class DistributedMetrics(Callback):
    """Makes the figures of an epoch those of all images, whichever process has seen them. Must be the first callback.

    Averages are taken by images, not by processes: their shares need not be equally large.
    """

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Starts to count images."""
        self.images: Counter[str] = Counter()

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        """Counts images trained on."""
        self.images["train"] += logs["size"]

    def on_valid_begin(self, logs: dict) -> None:
        """Each process has gathered statistics of its own pictures in BatchNorm layers; from here on they are equal."""
        broadcast_parameters(self.model.network, buffers_only=True)

    def on_valid_batch_end(self, batch_number: int, logs: dict) -> None:
        """Counts images scored."""
        self.images["val"] += logs["size"]

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        """Change the losses in place, for all callbacks that follow; torchmetrics has made the metrics equal."""
        counts = {"loss": self.images["train"], "val_loss": self.images["val"]}
        logs.update(weighted_all_reduce({name: float(logs[name]) * count for name, count in counts.items()}, counts))
