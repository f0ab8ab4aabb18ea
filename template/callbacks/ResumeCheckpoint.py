"""Checkpoint of everything that a resumed run needs: `last.pt`."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from poutyne import Callback, EarlyStopping, ReduceLROnPlateau, set_seeds

from callbacks.BestCheckpoint import BestCheckpoint
from callbacks.LRSchedule import LRSchedule
from config import Config
from core.environment import rank
from core.errors import UserError, format_error
from core.files import atomic_write, write_tensors
from models import Classifier
from Project import Run

logger = logging.getLogger(__name__)


@dataclass
class ResumeCheckpoint(Callback):
    """Checkpoint of the network, the optimizer, the schedule, the best score and the patience, after each epoch.

    It must be the last callback: the others change their state at the end of an epoch, and reset it in
    `on_train_begin`. Random states are not saved: each epoch is seeded by its number.
    """

    run: Run
    network: Classifier
    seed: int
    schedule: ReduceLROnPlateau | LRSchedule
    best: BestCheckpoint
    stop: EarlyStopping
    state: dict[str, Any] | None

    def on_train_begin(self, logs: dict) -> None:
        if self.state is None:
            return
        try:
            self.model.optimizer.load_state_dict(self.state["optimizer"])
        except ValueError as error:
            raise UserError(
                f"the optimizer of this run has other parameters; was the code changed? {error}"
            ) from error
        self.schedule.scheduler.load_state_dict(self.state["schedule"])
        self.best.current_best = self.state["best"]
        self.stop.best = self.state["stop"]["best"]
        self.stop.wait = self.state["stop"]["wait"]

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        seeds = np.random.SeedSequence([self.seed, epoch_number, rank()])
        set_seeds(int(seeds.generate_state(1)[0]))

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        if rank() > 0:
            return
        state = {
            "epoch": epoch_number,
            "epochs": self.params["epochs"],
            "stopped": bool(self.model.stop_training),
            "network": self.network.state_dict(),
            "optimizer": self.model.optimizer.state_dict(),
            "schedule": self.schedule.scheduler.state_dict(),
            "best": float(self.best.current_best),  # torch.load(weights_only=True) refuses NumPy's numbers
            "stop": {"best": float(self.stop.best), "wait": self.stop.wait},
        }
        with atomic_write(self.run.last, "wb") as file:
            write_tensors(state, file)


def load_state(config: Config) -> dict[str, Any] | None:
    """Load the state that `ResumeCheckpoint` saved, None for a new run, and cut `log.csv` back to its epoch.

    Raises:
        UserError: a checkpoint is missing or cannot be read, or the run has stopped early.
    """
    if not config.resume:
        return None
    run = Run(config.resume)
    for file in run.last, run.best:
        if not file.is_file():
            raise UserError(
                f"{run.folder} holds no {file.name}; if it was killed in its first epoch, delete it and start again "
                "with the same command: checked images and computed features are cached"
            )
    try:
        state = torch.load(run.last, map_location="cpu", weights_only=True)
        epoch = state["epoch"]
        wait = state["stop"]["wait"]
        state["stopped"] = state["stopped"] and wait >= config.patience  # which may have been raised
        state["schedule"].pop("patience", None)  # ReduceLROnPlateau has it from --patience
        log = run.log.read_bytes().splitlines(keepends=True)
    except Exception as error:
        raise UserError(f"{run.folder} cannot be resumed ({format_error(error)})") from error
    if state["stopped"]:
        if config.epochs > state["epochs"]:
            raise UserError(
                f"--epochs {config.epochs}: this run stopped early after epoch {epoch} and would not continue; "
                f"add a larger --patience, such as --patience {2 * wait}"
            )
        logger.info("This run stopped early after epoch %d; a larger --patience continues it.", epoch)
    if rank() == 0:
        with atomic_write(run.log, "wb") as mended:
            # a run that was killed between the two files has an epoch more there
            mended.writelines(log[: epoch + 1])
    return state
