"""`best.pt`: the weights of the best epoch so far."""

from typing import IO, Any

from poutyne import ModelCheckpoint

from core.files import write_tensors
from core.task import reset_thresholds
from models import Classifier
from Project import Run


class BestCheckpoint(ModelCheckpoint):
    """Poutyne's checkpoint of the best, of the network itself and not of what several processes wrap around it."""

    def __init__(self, run: Run, network: Classifier, **settings: Any) -> None:
        """Says where and what.

        Args:
            run: its `best.pt` is written, at once.
            network: what is trained.
            settings: what Poutyne's callback takes.
        """
        name = str(run.best).replace("{", "{{").replace("}", "}}")  # Poutyne fills in what stands in braces
        super().__init__(name, save_best_only=True, **settings)
        self.run, self.network = run, network

    def save_file(self, fd: IO[bytes], epoch_number: int, logs: dict) -> None:
        """Writes the weights; where the disk is full, gives back what was taken of it.

        What a resumed run found out about the weights before these is no longer true.
        """
        for file in (self.run.metrics, self.run.predictions, self.run.calibration, self.run.report):
            file.unlink(missing_ok=True)
        reset_thresholds(self.run)
        try:
            write_tensors(self.network.state_dict(), fd)
        except OSError:
            fd.truncate(0)
            raise
