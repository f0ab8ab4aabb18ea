"""Logger to Weights & Biases: online with an API key, otherwise into the run folder for `wandb sync`."""

import logging
import os
import secrets
from pathlib import Path

import numpy as np
from dotenv import load_dotenv
from poutyne import WandBLogger
from torch.utils.data import DataLoader

from core.files import read_json
from Project import Run

logger = logging.getLogger(__name__)


class WandbCallback(WandBLogger):
    """One W&B run per run; a resumed run continues its W&B run."""

    def __init__(self, run: Run, env_file: Path, val_dl: DataLoader) -> None:
        import wandb

        load_dotenv(env_file)
        id_file = run / "wandb" / "run_id.txt"
        id_file.parent.mkdir(exist_ok=True)
        if not id_file.is_file():
            id_file.write_text(secrets.token_hex(4) + "\n", encoding="utf-8")
        experiment = wandb.init(
            name=run.folder.name,
            id=id_file.read_text(encoding="utf-8").strip(),
            resume="allow",
            mode=None if os.environ.get("WANDB_API_KEY") else "offline",
            dir=str(run.folder),
            config=read_json(run.config)["options"],
            settings=wandb.Settings(silent=True, console="off", init_timeout=20),
        )
        super().__init__(experiment=experiment)
        self.wandb = wandb
        self.plots = [run / "confusion_matrix.png", run / "curves.png"]

    def log_results(self, metrics: dict[str, float], confusion: np.ndarray, classes: list[str]) -> None:
        self.run.summary.update({f"final_{name}": value for name, value in metrics.items()})
        for path in self.plots:
            self.run.log({path.name: self.wandb.Image(str(path))})

    def end(self) -> None:
        self.run.finish()
        if self.run.offline:
            logger.info(
                "Weights & Biases: to upload this run, type: wandb sync %s", Path(self.run.dir).parent
            )
