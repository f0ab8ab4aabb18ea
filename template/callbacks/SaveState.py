"""`last.pt`: at the end of each epoch all that a resumed run needs, in one file."""

import csv
import random
from typing import Any

import numpy as np
import torch
from poutyne import Callback, EarlyStopping, ModelCheckpoint, ReduceLROnPlateau

from callbacks.Schedule import Schedule
from Project import Run
from utils import UserError, brief, replacing


class SaveState(Callback):
    """Keeps network, optimizer, schedule, counters, best-so-far and random states, and puts them back.

    It must be the last callback: what the others do at the end of an epoch is then part of the state, and what they
    reset at the start of the training is put back after them.
    """

    def __init__(
        self,
        run: Run,
        schedule: ReduceLROnPlateau | Schedule,
        best: ModelCheckpoint,
        stop: EarlyStopping,
        state: dict[str, Any] | None = None,
    ) -> None:
        """Takes the callbacks whose counters are kept.

        Args:
            run: where `last.pt` goes.
            schedule, best, stop: of the same training.
            state: from `load_state`, to be put back when the training begins.
        """
        super().__init__()
        self.run, self.schedule, self.best, self.stop, self.state = run, schedule, best, stop, state

    def on_train_begin(self, logs: dict) -> None:
        """Puts the state back, if there is one."""
        if self.state is None:
            return
        self.model.network.load_state_dict(self.state["network"])
        self.model.optimizer.load_state_dict(self.state["optimizer"])
        self.schedule.load_state_dict(self.state["schedule"])
        self.best.current_best = self.state["best"]
        self.stop.best, self.stop.wait = self.state["best"], self.state["wait"]
        set_random_states(self.state["random"])

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        """Writes the state."""
        state = {
            "epoch": epoch_number,
            "epochs": self.params["epochs"],
            "stopped": bool(self.model.stop_training),
            "network": self.model.network.state_dict(),
            "optimizer": self.model.optimizer.state_dict(),
            "schedule": {name: to_plain(value) for name, value in self.schedule.state_dict().items()},
            "best": float(self.best.current_best),
            "wait": self.stop.wait,
            "random": random_states(),
        }
        with replacing(self.run.last, "wb") as file:
            torch.save(state, file)


def to_plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which `torch.load(weights_only=True)` accepts."""
    return value.item() if isinstance(value, np.generic) else value


def random_states() -> dict[str, Any]:
    """States of torch's, NumPy's and Python's generators, as tensors and plain values."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """The opposite of `random_states`."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):  # maybe fewer now
            torch.cuda.set_rng_state(state.cpu(), device)
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])


def load_state(run: Run, epochs: int) -> dict[str, Any]:
    """Reads `last.pt`, and cuts `log.csv` back to its epoch: a run may have been killed between the two.

    Args:
        run: an interrupted or finished one.
        epochs: how many it should have in all.

    Returns:
        What `last.pt` holds.

    Raises:
        UserError: there is no such file: the run ended before its first epoch did; or it cannot be read; or it has
            stopped early and more epochs are asked for.
    """
    for file in (run.last, run.best):
        if not file.is_file():
            raise UserError(f"{run.folder} holds no {file.name}: has the run had an epoch? start a new one")
    try:
        state = torch.load(run.last, map_location="cpu", weights_only=True)
        with open(run.log, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except Exception as error:
        raise UserError(f"{run.folder} cannot be resumed ({brief(error)})") from error
    if state["stopped"] and epochs > state["epochs"]:
        raise UserError(
            f"--epochs {epochs}: this run has stopped early, after epoch {state['epoch']}, so more epochs would not "
            "change it; start a new run with a larger --patience"
        )
    with replacing(run.log) as file:
        csv.writer(file).writerows([header, *(row for row in rows if row and int(row[0]) <= state["epoch"])])
    return state
