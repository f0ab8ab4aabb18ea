"""Gradual unfreezing of a pretrained backbone, once the head is trained."""

import logging
from dataclasses import dataclass

from poutyne import Callback, EarlyStopping, ReduceLROnPlateau

from callbacks.LRSchedule import LRSchedule
from core.processes import wrap_ddp
from models import Classifier

logger = logging.getLogger(__name__)


@dataclass
class GradualUnfreezing(Callback):
    """Gradual unfreezing (Howard and Ruder, ACL 2018): one more stage in each epoch, from the last to the first."""

    network: Classifier
    first_epoch: int
    schedule: ReduceLROnPlateau | LRSchedule
    stop: EarlyStopping

    def __post_init__(self) -> None:
        self.n_frozen = self.network.n_frozen

    def n_frozen_in(self, epoch: int) -> int:
        n_unfrozen = max(0, epoch - self.first_epoch + 1)
        return max(0, self.n_frozen - n_unfrozen)

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        # From the epoch's number alone, so that a resumed run has the same stages frozen.
        n = self.n_frozen_in(epoch_number)
        if n != self.network.n_frozen:
            logger.info(
                "epoch %d: %d of %d stages are still frozen", epoch_number, n, len(self.network.stages())
            )
            self.network.freeze(n)
            self.model.network = wrap_ddp(self.network, self.model.device)
        if n == self.n_frozen_in(epoch_number - 1):
            return
        # Reset patience and learning rate, since the loss may rise at first.
        self.stop.on_train_begin({})
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.on_train_begin({})
            for group in self.model.optimizer.param_groups:
                group["lr"] = group["unfrozen_lr"]
