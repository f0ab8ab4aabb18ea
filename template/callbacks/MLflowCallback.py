"""Metrics to MLflow: to the server that MLFLOW_TRACKING_URI names, else into a database beside the runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from poutyne import MLFlowLogger
from torch.utils.data import DataLoader

from core.files import read_json
from Project import Run


class MLflowCallback(MLFlowLogger):
    """One MLflow run for one run; a resumed one goes on with it."""

    def __init__(self, run: Run, env_file: Path, val_dl: DataLoader) -> None:
        """Starts it.

        Args:
            run: its options are logged, and its folder `mlflow/` remembers which run it is.
            env_file: may hold MLFLOW_TRACKING_URI and what the server asks for.
            val_dl: not needed.
        """
        import mlflow  # noqa: F401
        from dotenv import load_dotenv

        load_dotenv(env_file)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is gone must not hold up the run
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        self.run = run
        folder = run / "mlflow"
        folder.mkdir(exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        known = folder / "run_id.txt"
        if known.is_file():
            super().__init__(run_id=known.read_text(encoding="utf-8").strip(), tracking_uri=uri, terminate_on_end=False)
            return
        super().__init__(experiment_name=run.folder.name, tracking_uri=uri, terminate_on_end=False)
        known.write_text(self.run_id + "\n", encoding="utf-8")
        self.log_config_params(read_json(run.config)["options"])

    def _handle_experiment_id(self, experiment_name: str | None, experiment_id: str | None) -> str:
        """The experiment of this name; Poutyne would take the server's address for a folder of artifacts."""
        found = self.ml_flow_client.get_experiment_by_name(experiment_name)
        folder = (self.run / "mlflow" / "artifacts").as_uri()
        local = not os.environ.get("MLFLOW_TRACKING_URI")
        if found:
            return found.experiment_id
        return self.ml_flow_client.create_experiment(experiment_name, folder if local else None)

    def _on_epoch_end_write(self, epoch_number: int, logs: dict) -> None:
        """The epoch's metrics and learning rate. Poutyne takes the epoch out of the dictionary that all share."""
        super()._on_epoch_end_write(epoch_number, {**logs, **self._get_current_learning_rates()})

    def log_results(self, metrics: dict[str, Any], confusion: np.ndarray, classes: Sequence[str]) -> None:
        """The final figures, pictures and weights; see `CometCallback`."""
        self.log_metrics({f"final_{name}": value for name, value in metrics.items()})
        for path in (self.run / "confusion_matrix.png", self.run / "curves.png", self.run.best):
            self.ml_flow_client.log_artifact(self.run_id, str(path))

    def end(self) -> None:
        """Says that it has ended."""
        self.ml_flow_client.set_terminated(self.run_id, self._status)
