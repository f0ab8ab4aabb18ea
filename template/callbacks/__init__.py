"""What happens at the end of each epoch: the log, the learning rate, the best weights, the end, the trackers.

A new tracker is a function and a line in `TRACKERS`: it takes the run, the project's `.env` and the validation loader,
and returns a Poutyne callback with two methods more, `log_results(...)` and `end()`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from poutyne import Callback, EarlyStopping, ReduceLROnPlateau
from torch.utils.data import DataLoader

from callbacks.BestCheckpoint import BestCheckpoint
from callbacks.CometCallback import CometCallback
from callbacks.DistributedMetrics import DistributedMetrics
from callbacks.EpochLogger import EpochLogger
from callbacks.GradualUnfreezing import GradualUnfreezing
from callbacks.MLflowCallback import MLflowCallback
from callbacks.NonFiniteLossGuard import NonFiniteLossGuard
from callbacks.ProgressBar import ProgressBar
from callbacks.ResumeCheckpoint import ResumeCheckpoint, load_state
from callbacks.SafeTracker import SafeTracker
from callbacks.Schedule import Schedule
from callbacks.TensorBoardCallback import TensorBoardCallback
from callbacks.WandbCallback import WandbCallback
from config import Config
from core.errors import lookup
from core.processes import rank, world_size
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
def get_trackers(names: Sequence[str], run: Run, env_file: Path, val_dl: DataLoader) -> Iterator[list[SafeTracker]]:
    """Starts the trackers that were chosen, and ends them however the run ends.

    Args:
        names: of `TRACKERS`; others, `none` and `csv`, start nothing. Of several processes one starts them.
        run: has its config.json; they may leave in its folder what they keep.
        env_file: the project's file with keys.
        val_dl: for those that show pictures.

    Raises:
        UserError: a tracker is not installed.
    """
    trackers: list[SafeTracker] = []
    try:
        for name in names:
            if name in TRACKERS and rank() == 0:
                trackers.append(SafeTracker(name, partial(TRACKERS[name], run, env_file, val_dl)))
        yield trackers
    finally:
        for tracker in trackers:
            tracker.end()


def get_callbacks(
    config: Config, network: Classifier, run: Run, trackers: list[SafeTracker], state: dict[str, Any] | None
) -> list[Callback]:
    """All callbacks of a training, in the order in which they act.

    Args:
        config: patience, schedule, unfreeze_epoch, seed.
        network: as it is at the start, with what is frozen.
        run: where log and weights go.
        trackers: from `get_trackers`.
        state: what `last.pt` held, to go on from there; None at a new start.
    """
    best = BestCheckpoint(run, network, monitor=MONITOR, mode=MODE)
    build = lookup(config.lr_schedule, SCHEDULES, "schedule")
    plateau = ReduceLROnPlateau(monitor=MONITOR, mode=MODE, factor=0.1, patience=config.patience // 2)
    schedule = Schedule(build) if build else plateau
    stop = EarlyStopping(monitor=MONITOR, mode=MODE, patience=config.patience)
    training: list[Callback] = [DistributedMetrics()] if world_size() > 1 else []
    training.append(NonFiniteLossGuard(run))
    if config.unfreeze_epoch:
        training.append(GradualUnfreezing(network, config.unfreeze_epoch, schedule, stop))
    keeper = ResumeCheckpoint(run, network, config.seed, schedule, best, stop, state)
    if rank() > 0:  # one process writes
        return [*training, schedule, stop, keeper]
    return [
        *training,
        EpochLogger(run, append=state is not None),
        schedule,
        best,
        stop,
        *trackers,
        ProgressBar(stop),
        keeper,
    ]


__all__ = ["TRACKERS", "get_callbacks", "get_trackers", "load_state"]
