"""For scripts and notebooks: choose a device, show images, load a finished run."""

import random
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader, Dataset

from config import load_config
from core.environment import local_rank
from core.errors import lookup
from core.run_folder import open_run
from core.task import load_task
from data.transformation import get_transforms
from evaluation import plots
from evaluation.calibration import load_calibration
from evaluation.scoring import Scores, load_scores, read_log
from models import load_network


def get_device(name: str) -> torch.device:
    """Return a device of this machine; under torchrun, each process gets an accelerator of its own.

    Args:
        name: "auto" for the accelerator if there is one, else the CPU; or "cpu", "cuda", "cuda:1", "mps", "xpu".

    Raises:
        UserError: there is no such device on this machine.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = accelerator.type if accelerator else "cpu"
    devices = {"cpu": torch.device("cpu")}
    for i in range(torch.accelerator.device_count()):
        devices[f"{kind}:{i}"] = torch.device(kind, i)
    if name == "auto":
        name = kind
    if accelerator and name == kind:
        name = f"{kind}:{local_rank()}"
    return lookup(name, devices, "device")


def show_dataset(dataset: Dataset, n: int = 16, file: str | Path | None = None) -> None:
    """Show at most n random images of a dataset with their classes.

    Args:
        dataset: of pairs (image, label); an image is a PIL image or a tensor (C, H, W), uint8 or float.
        file: to write (default: the output of a notebook, or `show_dataset.png` in a script).
    """
    indices = random.sample(range(len(dataset)), min(n, len(dataset)))
    items = [dataset[i] for i in indices]
    images, labels = zip(*items, strict=True)
    figure = plots.image_grid(images, plots.class_names(dataset, labels))
    plots.show_figure(figure, "show_dataset.png", file)


def show_dl(dl: DataLoader, n: int = 16, file: str | Path | None = None) -> None:
    """Show at most n images of a loader as the network gets them, with their classes.

    Args:
        dl: loader that shuffles, whose next batch is shown, or that does not: images from all of its dataset.
        file: to write (default: the output of a notebook, or `show_dl.png` in a script).
    """
    plots.show_figure(plots.batch_grid(dl, n), "show_dl.png", file)


class LoadedRun:
    """Finished run: its options, its network with the best weights, its log and its scores on the test set."""

    def __init__(self, folder: str | Path) -> None:
        self.run = open_run(Path(folder))  # paths of its files
        self.config = load_config(self.run)
        self.task = load_task(self.run)
        self.classes = self.task.classes
        self.calibration = load_calibration(self.run)
        # in eval mode; images (N, 3, H, W) of uint8 → logits (N, n_classes)
        self.network = load_network(self.run)
        # PIL image → its tensor
        _, self.transform = get_transforms(self.config.image_size, resize=self.config.resize)

    @property
    def log(self) -> pd.DataFrame:
        return read_log(self.run)

    @property
    def scores(self) -> Scores:
        return load_scores(self.run)

    def figures(self) -> dict[str, Figure]:
        return plots.run_figures(self.run, self.scores)


def load_run(folder: str | Path) -> LoadedRun:
    """Load a finished run; the images are not needed.

    Raises:
        UserError: the folder holds no run, or a file of it cannot be read.
    """
    return LoadedRun(folder)
