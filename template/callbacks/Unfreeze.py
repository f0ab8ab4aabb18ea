"""Lets the backbone train too, stage by stage, once the head has settled."""

import logging

from poutyne import Callback

logger = logging.getLogger(__name__)


class Unfreeze(Callback):
    """Gradual unfreezing (Howard and Ruder, ACL 2018): the last stage first, then one more with each epoch."""

    def __init__(self, at: int, n_frozen: int) -> None:
        """Says when.

        Args:
            at: the epoch, from 1, in which the first stage begins to train.
            n_frozen: how many are frozen until then.
        """
        super().__init__()
        self.at, self.n_frozen = at, n_frozen

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Freezes as many stages as should be in this epoch; its number is all that decides, also after a resume."""
        network = self.model.network
        n = max(0, self.n_frozen - max(0, epoch_number - self.at + 1))
        if n != network.n_frozen:
            logger.info("epoch %d: %d of %d stages are frozen now", epoch_number, n, len(network.stages()))
            network.freeze(n)
