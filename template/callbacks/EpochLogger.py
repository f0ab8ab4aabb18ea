"""Writer of `log.csv`."""

from poutyne import CSVLogger

from core.stopwatch import Stopwatch


class EpochLogger(CSVLogger):
    """Poutyne's CSV logger, with the seconds that each epoch spent on loading data, training and validation."""

    def _on_train_begin_write(self, logs: dict) -> None:
        self.fieldnames += ["data_time", "train_time", "val_time"]
        super()._on_train_begin_write(logs)

    def on_epoch_begin(self, epoch_number: int, logs: dict) -> None:
        self.stopwatch = Stopwatch()

    def on_train_batch_begin(self, batch_number: int, logs: dict) -> None:
        self.stopwatch.lap("data_time")

    def on_train_batch_end(self, batch_number: int, logs: dict) -> None:
        self.stopwatch.lap("train_time")

    def on_valid_end(self, logs: dict) -> None:
        self.stopwatch.lap("val_time")

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        super().on_epoch_end(epoch_number, {**logs, **self.stopwatch.seconds})
