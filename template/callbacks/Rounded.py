"""Takes the noise off accuracies, so that equal ones are equal."""

from poutyne import Callback


class Rounded(Callback):
    """Poutyne averages over batches, and so 44 of 50 may be 87.9999969 or 87.9999992 per cent: no better, no worse.

    Which epoch is the best must not depend on that, nor on how many processes have counted.
    """

    def on_epoch_end(self, epoch_number: int, logs: dict) -> None:
        """Rounds to a ten-thousandth of a per cent, in place, for all callbacks that follow."""
        for name in "acc", "val_acc":
            logs[name] = round(float(logs[name]), 4)
