"""Lets the backbone train too, stage by stage, once the head has settled."""

import logging

from poutyne import Callback

from distributed import wrap
from models import Classifier

logger = logging.getLogger(__name__)


class Unfreeze(Callback):
    """Gradual unfreezing (Howard and Ruder, ACL 2018): the last stage first, then one more with each epoch."""

    def __init__(self, network: Classifier, at: int) -> None:
        """Says when.

        Args:
            network: as many of its stages are frozen as should be until then.
            at: the epoch, from 1, in which the first stage begins to train.
        """
        super().__init__()
        self.network, self.n_frozen, self.at = network, network.n_frozen, at

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Freezes as many stages as should be in this epoch; its number is all that decides, also after a resume."""
        n = max(0, self.n_frozen - max(0, epoch_number - self.at + 1))
        if n != self.network.n_frozen:
            logger.info("epoch %d: %d of %d stages are frozen now", epoch_number, n, len(self.network.stages()))
            self.network.freeze(n)
            self.model.network = wrap(self.network, self.model.device)
