"""Logger to Comet: online with an API key, otherwise into an archive in the run folder."""

import logging
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from dotenv import dotenv_values
from poutyne import Logger
from torch.utils.data import DataLoader

from core.errors import format_error
from core.files import read_json
from Project import Run

logger = logging.getLogger(__name__)

QUIET = {
    "log_code": False,
    "log_graph": False,
    "log_git_patch": False,
    "parse_args": False,
    "auto_output_logging": False,
    "display_summary_level": 0,
}


class CometCallback(Logger):
    """One Comet experiment per run; a resumed run continues its experiment.

    The API key comes from the environment, from the project's `.env` file or from Comet's own configuration.
    """

    def __init__(self, run: Run, env_file: Path, val_dl: DataLoader) -> None:
        super().__init__()
        for name, value in dotenv_values(env_file).items():
            if value:  # an empty one would hide Comet's own configuration
                os.environ.setdefault(name, value)
        self.run = run
        self.folder = run / "comet"
        self.folder.mkdir(exist_ok=True)
        self.experiment = self.start()
        config = read_json(run.config)
        self.experiment.log_parameters({**config.pop("options"), **config})

    def start(self) -> Any:
        """Start or continue the experiment, offline if Comet does not answer."""
        os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")  # has to be set before the import
        import comet_ml

        for name in ("comet_ml", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
        key_file = self.folder / "experiment_key.txt"
        key = key_file.read_text(encoding="utf-8").strip() if key_file.is_file() else None
        config = comet_ml.ExperimentConfig(
            name=self.run.folder.name, offline_directory=str(self.folder), **QUIET
        )
        settings = {
            "experiment_key": key,
            "mode": "get_or_create" if key else "create",
            "experiment_config": config,
        }
        self.online = False
        reason = "no API key"
        if comet_ml.config.get_api_key(None, comet_ml.get_config()):
            try:
                experiment = comet_ml.start(online=True, **settings)
                self.online = experiment.alive
                reason = "no answer"
            except Exception as error:
                reason = format_error(error)
        if self.online:
            logger.info("Comet: %s", experiment.url)
        else:
            logger.info("Comet is not available (%s), so this run is logged offline", reason)
            experiment = comet_ml.start(online=False, **settings)
        key_file.write_text(experiment.get_key() + "\n", encoding="utf-8")
        return experiment

    def _on_epoch_end_write(self, epoch_number: int, logs: dict) -> None:
        metrics = {**logs, **self._get_current_learning_rates()}
        del metrics["epoch"]
        self.experiment.log_metrics(metrics, epoch=epoch_number, step=epoch_number)

    def log_results(self, metrics: dict[str, float], confusion: np.ndarray, classes: list[str]) -> None:
        self.experiment.log_metrics({f"final_{name}": value for name, value in metrics.items()})
        if confusion.ndim == 2:
            self.experiment.log_confusion_matrix(matrix=confusion.tolist(), labels=classes)
        for name in ("curves.png", "confusion_matrix.png"):
            self.experiment.log_image(str(self.run / name), name=name)
        self.experiment.log_model("best", str(self.run.best))

    def end(self) -> None:
        self.experiment.end()  # completes the archive
        if not self.online:
            archives = sorted(map(str, self.folder.glob("*.zip")))  # a resumed run has several
            logger.info("Comet: to upload this run, type: comet upload %s", shlex.join(archives))
