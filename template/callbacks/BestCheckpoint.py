"""Checkpoint of the best epoch so far: `best.pt`."""

from typing import IO, Any

from poutyne import ModelCheckpoint

from core.files import write_tensors
from core.task import reset_thresholds
from models import Classifier
from Project import Run


class BestCheckpoint(ModelCheckpoint):
    """Poutyne's checkpoint, for the network without its DistributedDataParallel wrapper."""

    def __init__(self, run: Run, network: Classifier, **settings: Any) -> None:
        path = str(run.best).replace("{", "{{").replace("}", "}}")  # Poutyne formats this string
        super().__init__(path, save_best_only=True, **settings)
        self.run = run
        self.network = network

    def save_file(self, fd: IO[bytes], epoch_number: int, logs: dict) -> None:
        # In a resumed run these describe the previous best weights.
        for file in (self.run.metrics, self.run.predictions, self.run.calibration, self.run.report):
            file.unlink(missing_ok=True)
        reset_thresholds(self.run)
        try:
            write_tensors(self.network.state_dict(), fd)
        except OSError:
            fd.truncate(0)  # on a full disk the unfinished file must not take up the remaining space
            raise
