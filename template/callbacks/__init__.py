"""Callbacks of a training: log, schedule, checkpoints, early stopping and experiment trackers.

A custom tracker is a class and a line in `TRACKERS`. It is called with the run, the project's `.env` file and the
validation loader, and returns a Poutyne callback with two more methods: `log_results(metrics, confusion, classes)` gets
the final metrics and the confusion matrix, and `end()` is called however the run ends.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poutyne import Callback, EarlyStopping, ReduceLROnPlateau
from torch.utils.data import DataLoader

from callbacks.BestCheckpoint import BestCheckpoint
from callbacks.CometCallback import CometCallback
from callbacks.DistributedMetrics import DistributedMetrics
from callbacks.EpochLogger import EpochLogger
from callbacks.GradualUnfreezing import GradualUnfreezing
from callbacks.LRSchedule import LRSchedule
from callbacks.MLflowCallback import MLflowCallback
from callbacks.NonFiniteLossGuard import NonFiniteLossGuard
from callbacks.ProgressBar import ProgressBar
from callbacks.ResumeCheckpoint import ResumeCheckpoint, load_state
from callbacks.SafeTracker import SafeTracker
from callbacks.TensorBoardCallback import TensorBoardCallback
from callbacks.WandbCallback import WandbCallback
from config import Config
from core.environment import rank, world_size
from core.errors import lookup
from evaluation.scoring import MODE, MONITOR
from models import Classifier
from Project import Run
from training.optimizers import SCHEDULES

TRACKERS: dict[str, Callable[[Run, Path, DataLoader], Any]] = {
    "comet": CometCallback,
    "tensorboard": TensorBoardCallback,
    "mlflow": MLflowCallback,
    "wandb": WandbCallback,
}


@contextmanager
def get_trackers(
    names: Sequence[str], run: Run, env_file: Path, val_dl: DataLoader
) -> Iterator[list[SafeTracker]]:
    """Start trackers in the process of rank 0, and end them when the context is left.

    Args:
        names: keys of `TRACKERS`; others, such as none and csv, are skipped.
        run: has its config.json already.
        env_file: API keys; it need not exist.
        val_dl: loader of the validation set.
    """
    trackers: list[SafeTracker] = []
    try:
        for name in names:
            if name in TRACKERS and rank() == 0:
                trackers.append(SafeTracker(name, TRACKERS[name], run, env_file, val_dl))
        yield trackers
    finally:
        for tracker in trackers:
            tracker.end()


def get_callbacks(
    config: Config, network: Classifier, run: Run, trackers: list[SafeTracker], state: dict[str, Any] | None
) -> list[Callback]:
    """Return the callbacks of a training in the order in which they have to be called; `state` is None in a new run."""
    build = lookup(config.lr_schedule, SCHEDULES, "schedule")
    plateau = ReduceLROnPlateau(monitor=MONITOR, mode=MODE, factor=0.1, patience=config.patience // 2)
    schedule = LRSchedule(build) if build else plateau
    best = BestCheckpoint(run, network, monitor=MONITOR, mode=MODE)
    stop = EarlyStopping(monitor=MONITOR, mode=MODE, patience=config.patience)
    training: list[Callback] = []
    if world_size() > 1:
        training.append(DistributedMetrics())
    training.append(NonFiniteLossGuard(run))
    if config.unfreeze_epoch:
        training.append(GradualUnfreezing(network, config.unfreeze_epoch, schedule, stop))
    if rank() == 0:
        log = EpochLogger(str(run.log), append=state is not None)
        training += [log, schedule, best, stop, *trackers, ProgressBar(stop)]
    else:
        training += [schedule, stop]
    training.append(ResumeCheckpoint(run, network, config.seed, schedule, best, stop, state))
    return training


__all__ = ["TRACKERS", "get_callbacks", "get_trackers", "load_state"]
