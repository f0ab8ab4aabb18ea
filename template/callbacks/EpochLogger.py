"""`log.csv`: Poutyne's columns, and where the time of each epoch went."""

import time

from poutyne import CSVLogger

from Project import Run


class EpochLogger(CSVLogger):
    """Adds the columns `data_time` (for pictures), `train_time` and `val_time`, in seconds."""

    def __init__(self, run: Run, append: bool) -> None:
        """Says where.

        Args:
            run: its `log.csv` is written.
            append: whether the run goes on; else it begins anew.
        """
        super().__init__(str(run.log), append=append)

    def _on_train_begin_write(self, logs: dict) -> None:
        """Poutyne leaves out what is not among its columns."""
        self.fieldnames += ["data_time", "train_time", "val_time"]
        super()._on_train_begin_write(logs)

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        """Starts anew."""
        self.spent = {"data_time": 0.0, "train_time": 0.0, "val_time": 0.0}
        self.last = time.perf_counter()

    def add(self, name: str) -> None:
        """What has passed since the last call was spent on this."""
        now = time.perf_counter()
        self.spent[name] += now - self.last
        self.last = now

    def on_train_batch_begin(self, batch_number: int, logs: dict) -> None:
        """The pictures are there."""
        self.add("data_time")

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        """They were trained on."""
        self.add("train_time")

    def on_valid_end(self, logs: dict) -> None:
        """Validation is through."""
        self.add("val_time")

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        """Writes the row."""
        super().on_epoch_end(epoch_number, {**logs, **self.spent})
