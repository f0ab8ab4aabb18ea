"""Pictures: where they come from, how they are read, split, augmented and put into batches.

A new data set is a function and a line in `DATASETS`: it takes the folder, the shares of train, val and test, and the
seed of the split, and returns a `Data`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data.demo import FOLDER, demo
from data.imagefolder import imagefolder, read_folders
from data.loaders import DataLoaders, make_loader, make_loaders
from data.MyDataset import my_dataset
from data.published import PUBLISHED
from data.splits import FRACTIONS, Data, check_problems, choose_fold, restore_split
from data.table import table
from data.tiny_imagenet import tiny_imagenet
from data.transformation import Transform, get_transforms, train_transform, val_transform
from distributed import one_first
from Project import Run
from utils import UserError, lookup, read_json

DATASETS: dict[str, Callable[[Path, Sequence[float], int], Data]] = {
    "imagefolder": imagefolder,
    "csv": table,
    "tiny_imagenet": tiny_imagenet,
    "my_dataset": my_dataset,
    "demo": demo,
    **PUBLISHED,
}
# Those that need no folder of yours: where in the project's cache they are kept.
OBTAINED = {
    "demo": FOLDER,
    **dict.fromkeys(PUBLISHED, "torchvision"),
}


def is_there(name: str, data_dir: Path) -> bool:
    """Whether a folder that somebody names holds this data set; else reading it could download or draw it there."""
    if name in PUBLISHED:
        return (data_dir / PUBLISHED[name].args[2]).is_dir()
    return name != "demo" or (data_dir / "train").is_dir()


def get_data(
    name: str,
    data_dir: Path,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    run: Run | None = None,
    fold: tuple[int, int] | None = None,
) -> Data:
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
        with one_first():  # what is downloaded, unpacked or drawn is so once on each machine
            data = read(data_dir, fractions, seed)
        data = choose_fold(data, *fold, seed) if fold else data
        if not run:
            return data
        if data.multilabel != run.thresholds.exists():
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


__all__ = [
    "DATASETS",
    "Data",
    "DataLoaders",
    "check_problems",
    "get_data",
    "get_dataloaders",
    "get_transforms",
    "is_there",
    "make_loader",
    "make_loaders",
    "train_transform",
    "val_transform",
]
