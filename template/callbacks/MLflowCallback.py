"""Logger to MLflow: to the server in MLFLOW_TRACKING_URI, otherwise into a database in the run folder."""

import os
from pathlib import Path

import numpy as np
from dotenv import load_dotenv
from poutyne import MLFlowLogger
from torch.utils.data import DataLoader

from core.files import read_json
from Project import Run


class MLflowCallback(MLFlowLogger):
    """One MLflow run per run; a resumed run continues its MLflow run."""

    def __init__(self, run: Run, env_file: Path, val_dl: DataLoader) -> None:
        load_dotenv(env_file)
        # do not wait long for a server that is down
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        self.run = run
        self.folder = run / "mlflow"
        self.folder.mkdir(exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / 'mlflow.db'}"
        # the final metrics come after the training
        settings = {"tracking_uri": uri, "terminate_on_end": False}
        id_file = self.folder / "run_id.txt"
        if id_file.is_file():
            super().__init__(run_id=id_file.read_text(encoding="utf-8").strip(), **settings)
        else:
            super().__init__(experiment_name=run.folder.name, **settings)
            id_file.write_text(self.run_id + "\n", encoding="utf-8")
            self.log_config_params(read_json(run.config)["options"])

    def _handle_experiment_id(self, experiment_name: str | None, experiment_id: str | None) -> str:
        # Poutyne's own method uses the URI of the server as the folder of the artifacts.
        experiment = self.ml_flow_client.get_experiment_by_name(experiment_name)
        if experiment:
            return experiment.experiment_id
        artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (self.folder / "artifacts").as_uri()
        return self.ml_flow_client.create_experiment(experiment_name, artifacts)

    def _on_epoch_end_write(self, epoch_number: int, logs: dict) -> None:
        super()._on_epoch_end_write(epoch_number, {**logs, **self._get_current_learning_rates()})

    def log_results(self, metrics: dict[str, float], confusion: np.ndarray, classes: list[str]) -> None:
        self.log_metrics({f"final_{name}": value for name, value in metrics.items()})
        for path in (self.run / "confusion_matrix.png", self.run / "curves.png", self.run.best):
            self.ml_flow_client.log_artifact(self.run_id, str(path))

    def end(self) -> None:
        self.ml_flow_client.set_terminated(self.run_id, self._status)
