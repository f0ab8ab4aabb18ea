"""Learning-rate schedule that changes after each batch, such as warm-up with cosine decay."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from poutyne import Callback
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


@dataclass
class LRSchedule(Callback):
    """One of torch's schedulers, stepped once a batch; Poutyne steps once an epoch."""

    build: Callable[[Optimizer, int], LRScheduler]

    def on_train_begin(self, logs: dict) -> None:
        n_batches = self.params["epochs"] * self.params["steps"]
        self.scheduler = self.build(self.model.optimizer, n_batches)

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        with warnings.catch_warnings():
            # With --grad-accum-steps the scheduler steps before the optimizer's first step, which torch warns about.
            warnings.simplefilter("ignore", UserWarning)
            self.scheduler.step()
