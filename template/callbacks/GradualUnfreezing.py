"""Unfreeze the backbone stage by stage, once the head has settled."""

import logging

from poutyne import Callback, EarlyStopping, ReduceLROnPlateau

from callbacks.Schedule import Schedule
from core.processes import wrap_ddp
from models import Classifier

logger = logging.getLogger(__name__)


class GradualUnfreezing(Callback):
    """Gradual unfreezing (Howard and Ruder, ACL 2018): the last stage first, then one more with each epoch."""

    def __init__(
        self, network: Classifier, at: int, schedule: ReduceLROnPlateau | Schedule, stop: EarlyStopping
    ) -> None:
        """Plan the unfreezing.

        Args:
            network: as many of its stages are frozen as should be until then.
            at: the epoch, from 1, in which the first stage begins to train.
            schedule, stop: a plateau and the patience start anew with each stage, since the loss may rise at first.
        """
        super().__init__()
        self.network, self.n_frozen, self.at = network, network.n_frozen, at
        self.schedule, self.stop = schedule, stop

    def n_frozen_in(self, epoch: int) -> int:
        """Return how many stages are frozen in an epoch."""
        return max(0, self.n_frozen - max(0, epoch - self.at + 1))

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Freeze as many stages as the number of the epoch says, which holds after a resume too."""
        n = self.n_frozen_in(epoch_number)
        if n != self.network.n_frozen:
            logger.info("epoch %d: %d of %d stages are frozen now", epoch_number, n, len(self.network.stages()))
            self.network.freeze(n)
            self.model.network = wrap_ddp(self.network, self.model.device)
        if n != self.n_frozen_in(epoch_number - 1):
            self.start_anew()

    def start_anew(self) -> None:
        """Forget what the schedule and the patience have counted so far."""
        self.stop.on_train_begin({})
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.on_train_begin({})
            for group in self.model.optimizer.param_groups:
                group["lr"] = group["unfrozen_lr"]
