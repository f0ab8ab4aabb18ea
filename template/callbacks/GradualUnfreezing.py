"""Gradual unfreezing of a pretrained backbone, once the head is trained."""

import logging

from poutyne import Callback, EarlyStopping, ReduceLROnPlateau

from callbacks.LRSchedule import LRSchedule
from core.processes import wrap_ddp
from models import Classifier

logger = logging.getLogger(__name__)


class GradualUnfreezing(Callback):
    """Gradual unfreezing (Howard and Ruder, ACL 2018): from an epoch on one stage more in each, the last one first."""

    def __init__(
        self, network: Classifier, first_epoch: int, schedule: ReduceLROnPlateau | LRSchedule, stop: EarlyStopping
    ) -> None:
        super().__init__()
        self.network = network
        self.n_frozen = network.n_frozen
        self.first_epoch = first_epoch
        self.schedule = schedule
        self.stop = stop

    def n_frozen_in(self, epoch: int) -> int:
        n_unfrozen = max(0, epoch - self.first_epoch + 1)
        return max(0, self.n_frozen - n_unfrozen)

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        # From the epoch's number alone, so that a resumed run has the same stages frozen.
        n = self.n_frozen_in(epoch_number)
        if n != self.network.n_frozen:
            logger.info("epoch %d: %d of %d stages are still frozen", epoch_number, n, len(self.network.stages()))
            self.network.freeze(n)
            self.model.network = wrap_ddp(self.network, self.model.device)
        if n != self.n_frozen_in(epoch_number - 1):
            self.reset_counters()

    def reset_counters(self) -> None:
        """Reset patience and learning rate, since the loss may rise at first."""
        self.stop.on_train_begin({})
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.on_train_begin({})
            for group in self.model.optimizer.param_groups:
                group["lr"] = group["unfrozen_lr"]
