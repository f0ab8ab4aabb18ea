"""For notebooks and users: looking at images, finished runs, the device."""

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from torch.utils.data import DataLoader, Dataset

    from data.transformation import Transform
    from evaluation.calibration import Calibration
    from evaluation.scoring import Scores
    from models import Classifier
from config import Config, load_config
from core.errors import UserError, lookup
from core.files import read_json
from core.processes import world_size
from core.run_folder import open_run
from Project import Run


def get_device(name: str) -> "torch.device":
    """Return the device to train on.

    Args:
        name: "auto" for the accelerator of this machine, else the CPU; or "cpu", "cuda", "cuda:1", "mps", "xpu".

    Raises:
        UserError: no such device, or not on this machine.
    """
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    if (
        found and world_size() > 1 and name in ("auto", found.type)
    ):  # each process of a machine takes a device of its own
        name = f"{found.type}:{os.environ.get('LOCAL_RANK', 0)}"
    if name == "auto" and found:
        return found
    if name in ("auto", "cpu"):
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    lookup(kind, dict.fromkeys(("auto", "cpu", "cuda", "mps", "xpu")), "device")
    here = ["cpu"] + [f"{found.type}:{i}" for i in range(torch.accelerator.device_count())] if found else ["cpu"]
    if f"{kind}:{number or 0}" not in here:
        raise UserError(f"there is no device {name!r} on this machine; available are: {', '.join(here)}")
    return torch.device(name)


def show_dataset(dataset: "Dataset", n: int = 16, file: str | Path | None = None) -> None:
    """Shows pictures of a data set, drawn at random, each under the name of its class.

    Args:
        dataset: items are (picture, label); a picture is a PIL image or a tensor (C, H, W), uint8 or float.
        n: how many pictures; fewer if there are fewer.
        file: where to draw them. By default in the notebook, or in `show_dataset.png` when called from a script.
    """
    from evaluation.plots import class_names, image_grid, show_figure

    chosen = random.sample(range(len(dataset)), min(n, len(dataset)))
    images, labels = zip(*(dataset[i] for i in chosen), strict=True)
    show_figure(image_grid(images, class_names(dataset, labels)), file or "show_dataset.png", inline=file is None)


def show_dl(dl: "DataLoader", n: int = 16, file: str | Path | None = None) -> None:
    """Shows pictures of a loader as the network gets them, each under the name of its class.

    From a loader that shuffles, its next batch; from one that does not, pictures from all over it.

    Args:
        dl: a loader of batches (images, labels): images (N, C, H, W), uint8 or float.
        n: how many pictures at most; a loader that shuffles shows no more than one batch.
        file: where to draw them. By default in the notebook, or in `show_dl.png` when called from a script.
    """
    from evaluation.plots import batch_grid, show_figure

    show_figure(batch_grid(dl, n), file or "show_dl.png", inline=file is None)


@dataclass(frozen=True)
class LoadedRun:
    """A finished run, for a notebook.

    Attributes:
        run: paths of its files.
        config: its options.
        classes: names by label.
        network: with its best weights, in eval mode: uint8 (N, 3, H, W) → logits (N, n_classes).
        transform: PIL image in RGB → uint8 tensor, as the network takes it.
        calibration: how sure is sure.
        log: log.csv as a table.
        scores: of the test set, from predictions.csv.
    """

    run: Run
    config: Config
    classes: list[str]
    network: "Classifier"
    transform: "Transform"
    calibration: "Calibration"
    log: "DataFrame"
    scores: "Scores"

    def figures(self) -> dict[str, "Figure"]:
        """The pictures of report.html."""
        from evaluation.report import figures

        return {name: draw() for name, draw in figures(self.run, self.scores).items()}


def load_run(folder: str | Path) -> LoadedRun:
    """A finished run with all that one would look at.

    Args:
        folder: of the run, wherever it was moved.

    Raises:
        UserError: it is none, or something in it is missing.
    """
    import pandas as pd

    from data import get_transforms
    from evaluation.calibration import load_calibration
    from evaluation.scoring import load_scores, read_log
    from models import load_network

    run = open_run(Path(folder))
    config = load_config(run)
    return LoadedRun(
        run,
        config,
        read_json(run.classes),
        load_network(run),
        get_transforms(config.image_size, resize=config.resize)[1],
        load_calibration(run),
        pd.DataFrame(read_log(run)),
        load_scores(run),
    )
