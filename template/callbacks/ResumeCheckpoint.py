"""`last.pt`: at the end of each epoch all that a resumed run needs, in one file."""

import csv
import logging
from typing import Any

import numpy as np
import torch
from poutyne import Callback, EarlyStopping, ReduceLROnPlateau, set_seeds

from callbacks.BestCheckpoint import BestCheckpoint
from callbacks.Schedule import Schedule
from config import Config
from core.errors import UserError, format_error
from core.files import atomic_write, write_tensors
from core.processes import rank
from models import Classifier
from Project import Run

logger = logging.getLogger(__name__)


class ResumeCheckpoint(Callback):
    """Keeps network, optimizer, schedule, counters and best-so-far, and puts them back.

    Random states need not be kept: what is drawn in an epoch depends on the seed, the epoch and the process alone.

    It must be the last callback: what the others do at the end of an epoch is then part of the state, and what they
    reset at the start of the training is put back after them.
    """

    def __init__(
        self,
        run: Run,
        network: Classifier,
        seed: int,
        schedule: ReduceLROnPlateau | Schedule,
        best: BestCheckpoint,
        stop: EarlyStopping,
        state: dict[str, Any] | None = None,
    ) -> None:
        """Takes the callbacks whose counters are kept.

        Args:
            run: where `last.pt` goes.
            network: what is trained; has its weights back already.
            seed: drives what is drawn in each epoch.
            schedule, best, stop: of the same training.
            state: from `load_state`, to be put back when the training begins.
        """
        super().__init__()
        self.run, self.network, self.seed = run, network, seed
        self.schedule, self.best, self.stop, self.state = schedule, best, stop, state

    def on_train_begin(self, logs: dict) -> None:
        """Puts the state back, if there is one."""
        if self.state is None:
            return
        try:
            self.model.optimizer.load_state_dict(self.state["optimizer"])
        except ValueError as error:
            message = "what trains is not what trained in this run; was the code changed? undo that, or start a new run"
            raise UserError(f"{message} ({format_error(error)})") from error
        self.schedule.load_state_dict(self.state["schedule"])
        self.best.current_best = self.state["best"]
        self.stop.best, self.stop.wait = self.state["stop"]["best"], self.state["stop"]["wait"]

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Dropout, MixUp and whatever else draws: the same again in this epoch of this run, and in no other."""
        set_seeds(int(np.random.SeedSequence([self.seed, epoch_number, rank()]).generate_state(1)[0]))

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        """Writes the state."""
        if rank() > 0:
            return
        state = {
            "epoch": epoch_number,
            "epochs": self.params["epochs"],
            "stopped": bool(self.model.stop_training),
            "network": self.network.state_dict(),
            "optimizer": self.model.optimizer.state_dict(),
            "schedule": {name: to_plain(value) for name, value in self.schedule.state_dict().items()},
            "best": float(self.best.current_best),
            "stop": {"best": float(self.stop.best), "wait": self.stop.wait},  # anew with each unfrozen stage
        }
        with atomic_write(self.run.last, "wb") as file:
            write_tensors(state, file)


def to_plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which `torch.load(weights_only=True)` accepts."""
    return value.item() if isinstance(value, np.generic) else value


def load_state(config: Config) -> dict[str, Any] | None:
    """Read `last.pt` of the run to resume, and cut `log.csv` back to its epoch: a kill may have come between the two.

    Args:
        config: resume, epochs, patience. With more patience than before, a run that has stopped continues.

    Returns:
        What `last.pt` holds; None for a new run.

    Raises:
        UserError: there is no such file: the run ended before its first epoch did; or it cannot be read; or it has
            stopped early and more epochs are asked for, but no more patience.
    """
    if not config.resume:
        return None
    run = Run(config.resume)
    for path in (run.last, run.best):
        if not path.is_file():
            raise UserError(
                f"{run.folder} holds no {path.name}: was it killed in its first epoch? delete it and start again with "
                "the same command; checked images and computed features are cached"
            )
    try:
        state = torch.load(run.last, map_location="cpu", weights_only=True)
        with open(run.log, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        wait, done = state["stop"]["wait"], state["epoch"]
        state["stopped"] = state["stopped"] and wait >= config.patience
        state["schedule"].pop("patience", None)  # of the plateau: it follows --patience, which may be larger now
    except Exception as error:
        raise UserError(f"{run.folder} cannot be resumed ({format_error(error)})") from error
    if state["stopped"] and config.epochs > state["epochs"]:
        raise UserError(
            f"--epochs {config.epochs}: this run has stopped early, after epoch {done}, and would not continue; "
            f"add a larger --patience, such as --patience {2 * wait}"
        )
    if state["stopped"]:
        logger.info("This run has stopped early, after epoch %d; a larger --patience continues it.", done)
    if rank() == 0:
        with atomic_write(run.log) as file:
            csv.writer(file).writerows([header, *rows[:done]])
    return state
