"""Metrics to Weights & Biases: online with a key, else into the run's folder, from where `wandb sync` uploads them."""

import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from poutyne import WandBLogger
from torch.utils.data import DataLoader

from core.files import read_json
from Project import Run

logger = logging.getLogger(__name__)


class WandbCallback(WandBLogger):
    """One run there for one run here; a resumed one goes on with it."""

    def __init__(self, run: Run, env_file: Path, val_dl: DataLoader) -> None:
        """Starts it.

        Args:
            run: its options are logged, and its folder `wandb/` remembers which run it is.
            env_file: may hold WANDB_API_KEY, WANDB_PROJECT, WANDB_ENTITY.
            val_dl: not needed.
        """
        import wandb
        from dotenv import load_dotenv

        load_dotenv(env_file)
        self.wandb, self.kept = wandb, run
        (run / "wandb").mkdir(exist_ok=True)
        known = run / "wandb" / "run_id.txt"
        run_id = known.read_text(encoding="utf-8").strip() if known.is_file() else secrets.token_hex(4)
        known.write_text(run_id + "\n", encoding="utf-8")
        online = bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE", "online") == "online"
        experiment = wandb.init(
            name=run.folder.name,
            id=run_id,
            resume="allow" if online else None,
            mode="online" if online else "offline",
            dir=str(run.folder),
            config=read_json(run.config)["options"],
            settings=wandb.Settings(silent=True, console="off", init_timeout=20),
        )
        super().__init__(experiment=experiment)

    def log_results(self, metrics: dict[str, Any], confusion: np.ndarray, classes: Sequence[str]) -> None:
        """The final figures and pictures; see `CometCallback`."""
        self.run.summary.update({f"final_{name}": value for name, value in metrics.items()})
        for name in ("confusion_matrix.png", "curves.png"):
            self.run.log({name: self.wandb.Image(str(self.kept / name))})

    def end(self) -> None:
        """Closes it."""
        folder = Path(self.run.dir).parent
        offline = self.run.settings.mode == "offline"
        self.run.finish()
        if offline:
            logger.info("Weights & Biases: to upload this run, type: wandb sync %s", folder)
