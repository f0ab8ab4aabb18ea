"""Metrics to Comet: online with a key, else into an archive in the run's folder that can be uploaded later."""

import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from poutyne import Logger
from torch.utils.data import DataLoader

from core.errors import format_error
from core.files import read_json
from Project import Run

logger = logging.getLogger(__name__)


class CometCallback(Logger):
    """One Comet experiment for one run; a resumed run goes on with it."""

    def __init__(self, run: Run, env_file: Path, val_dl: DataLoader) -> None:
        """Starts the experiment.

        The key comes from the environment, Comet's own configuration or the project's `.env`.

        Args:
            run: its options are logged; the archive and the experiment's key are kept in its folder `comet/`.
            env_file: may hold COMET_API_KEY, COMET_WORKSPACE, COMET_PROJECT_NAME.
            val_dl: not needed.
        """
        super().__init__()
        os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")  # we say what is logged; must be set before the import
        import comet_ml
        from dotenv import dotenv_values

        for name, value in dotenv_values(env_file).items():
            if value:  # one that is left empty must not hide Comet's own configuration
                os.environ.setdefault(name, value)
        for talkative in ("comet_ml", "urllib3"):  # what matters is said below
            logging.getLogger(talkative).setLevel(logging.ERROR)
        self.run, self.folder = run, run / "comet"
        self.folder.mkdir(exist_ok=True)
        key_file = self.folder / "experiment_key.txt"
        known = key_file.read_text(encoding="utf-8").strip() if key_file.is_file() else None
        settings = {
            "experiment_key": known,
            "mode": "get_or_create" if known else "create",
            "experiment_config": comet_ml.ExperimentConfig(
                name=run.folder.name,
                offline_directory=str(self.folder),
                log_code=False,
                log_graph=False,
                log_git_patch=False,
                parse_args=False,
                auto_output_logging=False,
                display_summary_level=0,
            ),
        }
        self.experiment = None
        has_key = bool(comet_ml.config.get_api_key(None, comet_ml.get_config()))
        if has_key:
            try:
                self.experiment = comet_ml.start(online=True, **settings)
            except Exception as error:
                logger.warning("Comet refuses (%s)", format_error(error))
        if self.experiment is None or not self.experiment.alive:
            self.experiment = comet_ml.start(online=False, **settings)
            logger.info("Comet: %s, so this run is kept offline", "no answer" if has_key else "no key")
        key_file.write_text(self.experiment.get_key() + "\n", encoding="utf-8")
        self.online = not isinstance(self.experiment, comet_ml.OfflineExperiment)
        described = read_json(run.config)
        self.experiment.log_parameters({**described.pop("options"), **described})
        if self.online:
            logger.info("Comet: %s", self.experiment.url)

    def _on_epoch_end_write(self, epoch_number: int, logs: dict) -> None:
        """The epoch's metrics and learning rate, under its number."""
        metrics = {name: value for name, value in logs.items() if name != "epoch"}
        metrics |= self._get_current_learning_rates()
        self.experiment.log_metrics(metrics, epoch=epoch_number, step=epoch_number)

    def log_results(self, metrics: dict[str, Any], confusion: np.ndarray, classes: Sequence[str]) -> None:
        """What stands at the end.

        Args:
            metrics: the final figures.
            confusion: (n_classes, n_classes) of int, true classes down, predicted across; or (n_classes, 2, 2).
            classes: their names.
        """
        self.experiment.log_metrics({f"final_{name}": value for name, value in metrics.items()})
        if confusion.ndim == 2:
            self.experiment.log_confusion_matrix(matrix=confusion.tolist(), labels=list(classes))
        for name in ("curves.png", "confusion_matrix.png"):
            self.experiment.log_image(str(self.run / name), name=name)
        self.experiment.log_model("best", str(self.run.best))

    def end(self) -> None:
        """Closes the experiment: without it an archive is useless. Calling it again does nothing."""
        if self.experiment is None:
            return
        experiment, self.experiment = self.experiment, None
        experiment.end()
        if not self.online:
            archives = sorted(self.folder.glob("*.zip"), key=lambda path: path.stat().st_mtime)
            files = " ".join(shlex.quote(str(path)) for path in archives)  # a resumed run leaves several
            logger.info("Comet: to upload this run, type: comet upload %s", files)
