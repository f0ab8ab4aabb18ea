"""Pictures: where they come from, how they are read, split, augmented and put into batches.

A new data set is a function and a line in `DATASETS`: it takes the folder, the shares of train, val and test, and the
seed of the split, and returns a `Data`.
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
from data.loaders import DataLoaders, make_loader, make_loaders
from data.MyDataset import my_dataset
from data.splits import FRACTIONS, DatasetSplits, check_problems, choose_fold, describe_split, restore_split
from data.tiny_imagenet import tiny_imagenet
from data.torchvision_datasets import TORCHVISION_DATASETS
from data.transformation import Transform, get_transforms, train_transform, val_transform
from Project import Project, Run

logger = logging.getLogger(__name__)

DATASETS: dict[str, Callable[[Path, Sequence[float], int], DatasetSplits]] = {
    "imagefolder": imagefolder,
    "csv": csv_dataset,
    "tiny_imagenet": tiny_imagenet,
    "my_dataset": my_dataset,
    "demo": demo,
    **TORCHVISION_DATASETS,
}
# Those that need no folder of yours: where in the project's cache they are kept.
OBTAINED = {
    "demo": FOLDER,
    **dict.fromkeys(TORCHVISION_DATASETS, "torchvision"),
}


def is_there(name: str, data_dir: Path) -> bool:
    """Whether a folder that somebody names holds this data set; else reading it could download or draw it there."""
    if name in TORCHVISION_DATASETS:
        return (data_dir / TORCHVISION_DATASETS[name].folder).is_dir()
    return name != "demo" or (data_dir / "train").is_dir()


def get_data(
    name: str,
    data_dir: Path,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    run: Run | None = None,
    fold: tuple[int, int] | None = None,
) -> DatasetSplits:
    """Reads a data set by name.

    Args:
        name: a key of `DATASETS`.
        data_dir: its folder.
        fractions: shares of train, val and test where it comes without a split of its own.
        seed: decides how it is split then.
        run: an earlier one, whose split is taken instead of a new one.
        fold: (i, k) for the i-th of k parts of train and val together to be val.

    Raises:
        UserError: no such name, or the folder does not hold what it should.
    """
    read = lookup(name, DATASETS, "data set")
    try:
        with local_main_first():  # what is downloaded, unpacked or drawn is so once on each machine
            data = read(data_dir, fractions, seed)
        data = choose_fold(data, *fold, seed) if fold else data
        if not run:
            return data
        if data.task.multilabel != load_task(run).multilabel:
            raise UserError("an image can have several classes now, or could in the run; that cannot be changed")
        return restore_split(data, read_json(run.split), read_json(run.classes))
    except UserError as error:
        if run:
            raise UserError(f"{error}; if the images of this run are elsewhere now, say so with --data-dir") from error
        raise


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
    num_workers: int | None = None,
    **options: Any,
) -> DataLoaders:
    """Loaders for folders of classes, in one call.

    Args:
        train_dir, val_dir, test_dir: each holds one folder for each class. Without `test_dir`, `val_dir` is split.
        train_transform, val_transform: PIL image → tensor.
        split: shares of validation and test in `val_dir`, stratified.
        batch_size: images in a batch.
        seed: drives order and augmentation.
        split_seed: drives the split.
        num_workers: processes that read pictures; by default one for each core, 8 at most.
        options: anything else that torch's DataLoader takes.

    Returns:
        What unpacks as `train_dl, val_dl, test_dl` and has `classes`.

    Raises:
        UserError: a folder, a class or its images are missing.
    """
    data = read_folders(train_dir, val_dir, test_dir, fractions=(0, *split), seed=split_seed)
    check_problems(data)
    loader_options = {"batch_size": batch_size, "seed": seed, "num_workers": num_workers, **options}
    return make_loaders(data, train_transform, val_transform, **loader_options)


def choose_dataset(config: Config, project: Project) -> Config:
    """Fills in which data set it is: the one asked for, else the project's own pictures, else the demo.

    Args:
        config: as typed.
        project: its `data_dir` is looked at.

    Returns:
        The config with `dataset`, and with `data_dir` absolute if it was given.

    Raises:
        UserError: the folder that was given does not exist.
    """
    name = config.dataset
    if config.data_dir and not config.data_dir.exists():
        advice = "give one that exists, or leave out --data-dir"
        if config.resume:
            advice = "if the images of this run are elsewhere now, say so with --data-dir"
        raise UserError(f"there is no folder {config.data_dir}; {advice}")
    if name is None:
        name = "imagefolder" if config.data_dir or any(images_in(project.data_dir)) else "demo"
        if config.data_dir and config.data_dir.suffix == ".csv":
            name = "csv"
        if name == "demo":
            logger.info("There is no image in %s, so this is the demo.", project.data_dir)
    return replace(config, dataset=name, data_dir=config.data_dir and config.data_dir.resolve())


def data_folder(config: Config, project: Project) -> Path:
    """Where the pictures are: what was given, else the project's own folder, or its cache where it gets them itself."""
    if config.data_dir is None and config.dataset in OBTAINED:
        return project.cache_dir / OBTAINED[config.dataset]
    return config.data_dir or project.data_dir


def load_data(config: Config, project: Project) -> DatasetSplits:
    """Read the data set that the options ask for; a resumed run gets the split that it had.

    Args:
        config: with `dataset`, see `choose_dataset`.
        project: its folders.

    Raises:
        UserError: as `get_data` does.
    """
    run = Run(config.resume) if config.resume else None
    folder = data_folder(config, project)
    data = get_data(config.dataset, folder, config.split, config.split_seed, run, config.fold)
    logger.info("%s: %s", config.dataset, data)
    return data


def get_loaders(config: Config, data: DatasetSplits) -> DataLoaders:
    """Return the loaders that the options ask for.

    Args:
        config: resolved.
        data: images and labels.
    """
    return make_loaders(
        data,
        *get_transforms(config.image_size, config.augmentation, config.resize),
        batch_size=config.batch_size,
        seed=config.seed,
        weights=data.image_weights,
        num_workers=config.num_workers,
    )


def load_run_data(run: Run, config: Config, project: Project, data_dir: Path | None) -> DatasetSplits:
    """The images of a finished run, dealt out as they were then.

    Args:
        run: has its split and its classes.
        config: of the run.
        project: where the images are if nobody says so.
        data_dir: where they are now; nothing is downloaded or drawn there.

    Raises:
        UserError: they are not there, not all of them, or are others now.
    """
    if data_dir and not is_there(config.dataset, data_dir):
        raise UserError(f"there is no {config.dataset} in {data_dir}")
    folder = data_dir or data_folder(config, project)
    return get_data(config.dataset, folder, config.split, config.split_seed, run, config.fold)


__all__ = [
    "DATASETS",
    "Data",
    "DataLoaders",
    "check_problems",
    "choose_dataset",
    "data_folder",
    "describe_split",
    "get_data",
    "get_dataloaders",
    "get_loaders",
    "get_transforms",
    "is_there",
    "load_data",
    "load_run_data",
    "make_loader",
    "make_loaders",
    "train_transform",
    "val_transform",
]
