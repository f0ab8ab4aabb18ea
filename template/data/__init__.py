"""Image data sets: found by name, read, split, augmented and batched.

A new data set is a function and a line in `DATASETS`: it takes the data folder and returns a `DatasetSplits`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from config import Config
from core.errors import UserError, lookup
from core.files import read_json
from core.processes import local_main_first
from core.task import load_task
from data.csv_dataset import csv_dataset
from data.demo import FOLDER, demo
from data.image_io import images_in
from data.imagefolder import imagefolder, read_folders
from data.loaders import DataLoaders, make_loaders
from data.loaders import make_loader as make_loader
from data.MyDataset import my_dataset
from data.splits import FRACTIONS, DatasetSplits, check_problems, choose_fold, complete_splits, restore_split
from data.splits import describe_split as describe_split
from data.tiny_imagenet import tiny_imagenet
from data.torchvision_datasets import TORCHVISION_DATASETS
from data.transformation import Transform, get_transforms, train_transform, val_transform
from Project import Project, Run

logger = logging.getLogger(__name__)

DATASETS: dict[str, Callable[[Path], DatasetSplits]] = {
    "imagefolder": imagefolder,
    "csv": csv_dataset,
    "tiny_imagenet": tiny_imagenet,
    "my_dataset": my_dataset,
    "demo": demo,
    **TORCHVISION_DATASETS,
}
# Data sets that are drawn or downloaded if --data-dir is not given, and their folders in the project's cache.
CACHE_FOLDERS = {"demo": FOLDER, **dict.fromkeys(TORCHVISION_DATASETS, "torchvision")}
MOVED = "if the images of this run have moved, give their folder with --data-dir"


def get_dataloaders(
    train_dir: str | Path,
    val_dir: str | Path,
    train_transform: Transform = train_transform,
    val_transform: Transform = val_transform,
    split: Sequence[float] = (0.5, 0.5),
    batch_size: int = 32,
    *,
    test_dir: str | Path | None = None,
    seed: int = 0,
    split_seed: int = 0,
    **options: Any,
) -> DataLoaders:
    """Return loaders of images in class folders, which unpack as `train_dl, val_dl, test_dl` and have `classes`.

    Args:
        split: fractions of validation and test set in `val_dir`, stratified; unused if there is a `test_dir`.
        seed: of order and augmentation.
        options: `num_workers` (default: one per core, at most 8) and any other argument of torch's DataLoader.

    Raises:
        UserError: a folder, a class or its images are missing.
    """
    data = read_folders(train_dir, val_dir, test_dir)
    check_problems(data)
    data = complete_splits(data, (0, *split), split_seed)
    return make_loaders(data, train_transform, val_transform, seed=seed, batch_size=batch_size, **options)


def choose_dataset(config: Config, project: Project) -> Config:
    """Return the config with the name of the data set, and with an absolute path if `data_dir` was given.

    The default is `imagefolder` or `csv` in `data_dir`, else `imagefolder` in the project's folder, else `demo`.

    Raises:
        UserError: `data_dir` was given and does not exist.
    """
    name, data_dir = config.dataset, config.data_dir
    if data_dir and not data_dir.exists():
        advice = MOVED if config.resume else "give one that exists, or leave out --data-dir"
        raise UserError(f"there is no folder {data_dir}; {advice}")
    if not name and data_dir:
        name = "csv" if data_dir.suffix == ".csv" else "imagefolder"
    elif not name and any(images_in(project.data_dir)):
        name = "imagefolder"
    elif not name:
        name = "demo"
        logger.info("There is no image in %s: using the demo data set.", project.data_dir)
    return replace(config, dataset=name, data_dir=data_dir and data_dir.resolve())


def data_folder(config: Config, project: Project) -> Path:
    """Return the folder of the images: `data_dir` if given, else a folder of the cache or the project's own."""
    if config.data_dir is None and config.dataset in CACHE_FOLDERS:
        return project.cache_dir / CACHE_FOLDERS[config.dataset]
    return config.data_dir or project.data_dir


def get_data(
    name: str, data_dir: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> DatasetSplits:
    """Read a data set by its name; without a split of its own, it is split into `fractions` by `seed`.

    Raises:
        UserError: the name is unknown, or the folder does not hold the data set.
    """
    read = lookup(name, DATASETS, "data set")
    with local_main_first():  # only one process of a machine downloads, unpacks or draws
        data = read(data_dir)
    return complete_splits(data, fractions, seed)


def load_data(
    config: Config, project: Project, run: Run | None = None, data_dir: Path | None = None
) -> DatasetSplits:
    """Read the data set of the options, which `choose_dataset` has completed.

    Args:
        run: a finished run, to restore its split (default: the resumed run, if any).
        data_dir: other folder of that run's images; nothing is downloaded into it.

    Raises:
        UserError: see `get_data`; or images of the run are missing.
    """
    if config.resume:
        run = Run(config.resume)
    if data_dir and not is_available(config.dataset, data_dir):
        raise UserError(f"there is no {config.dataset} in {data_dir}")
    try:
        data = get_data(
            config.dataset, data_dir or data_folder(config, project), config.split, config.split_seed
        )
        if config.fold:
            data = choose_fold(data, *config.fold, config.split_seed)
        if run:
            data = restore_split(data, read_json(run.split), load_task(run))
    except UserError as error:
        raise UserError(f"{error}; {MOVED}" if run else str(error)) from error
    logger.info("%s: %s", config.dataset, data)
    return data


def is_available(name: str, data_dir: Path) -> bool:
    """Return whether a data set can be read from a folder without drawing or downloading it there."""
    if name in TORCHVISION_DATASETS:
        data_dir = data_dir / TORCHVISION_DATASETS[name].folder
    return data_dir.exists()


def get_loaders(config: Config, data: DatasetSplits) -> DataLoaders:
    """Return the loaders that the resolved options ask for."""
    train_transform, val_transform = get_transforms(config.image_size, config.augmentation, config.resize)
    options = {"batch_size": config.batch_size, "seed": config.seed, "num_workers": config.num_workers}
    return make_loaders(data, train_transform, val_transform, **options)
