"""A schedule that changes the learning rate after each batch."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from poutyne import Callback
from torch.optim.lr_scheduler import LRScheduler


class Schedule(Callback):
    """Poutyne's own schedules act once an epoch; warm-up and one-cycle need more."""

    def __init__(self, build: Callable[[torch.optim.Optimizer, int], LRScheduler]) -> None:
        """Takes the schedule.

        Args:
            build: from the optimizer and the number of batches in all to one of torch's schedulers.
        """
        super().__init__()
        self.build = build

    def on_train_begin(self, logs: dict) -> None:
        """Starts it."""
        self.scheduler = self.build(self.model.optimizer, self.params["epochs"] * self.params["steps"])

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        """One step further."""
        with (
            warnings.catch_warnings()
        ):  # with --grad-accum-steps the optimizer's first step comes later, and that is meant
            warnings.simplefilter("ignore", UserWarning)
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.scheduler.load_state_dict(state)
