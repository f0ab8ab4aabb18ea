"""Photographs in folders: `train/<class>/*` and `val/<class>/*`, `test/` if there is one; or just `<class>/*`."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from data.image_dataset import ImageDataset
from data.image_io import images_in, is_image, walk_folders
from data.splits import FRACTIONS, DatasetSplits, complete_splits

logger = logging.getLogger(__name__)

LAYOUT = "expected are {0}/train/<class>/*.jpg and {0}/val/<class>/*.jpg, or {0}/<class>/*.jpg"


def list_images(root: Path, folder: Path, classes: Sequence[str]) -> ImageDataset:
    """List the images in the class folders of a folder, in the layout of torchvision's ImageFolder.

    Args:
        root: holds a folder for each class; images may lie deeper. Other folders in it are skipped.
        folder: what `files` of the result is relative to.
        classes: names by label.
    """
    labels = {name: label for label, name in enumerate(classes)}
    items = []
    for path in images_in(root):
        name = Path(path).relative_to(root).parts[0]  # of the class folder
        if name in labels:
            items.append((labels[name], os.path.split(path)))
    items.sort()
    files = [Path(*parts).relative_to(folder).as_posix() for _, parts in items]
    return ImageDataset(folder, files, [label for label, _ in items], classes)


def find_problems(dataset: ImageDataset, root: Path) -> list[str]:
    """Return a line for each class that has no image; log which files are skipped, being no images.

    Args:
        dataset: of `list_images`.
        root: the folder that was listed.
    """
    other = [name for _, names in walk_folders(root) for name in names if is_other(name)]
    if other:
        logger.warning("passed over in %s, being no images: %s", root, shorten(other))
    missing = sorted(set(range(len(dataset.classes))) - set(dataset.targets))
    names = [dataset.classes[label] for label in missing]
    return [f"the class {name!r} has no image in {root}; add some, or remove the class" for name in names]


def is_other(name: str) -> bool:
    """Return whether a file is neither an image nor one that a system leaves everywhere."""
    return not is_image(name) and not name.startswith(".") and name not in ("Thumbs.db", "desktop.ini")


def class_folders(directory: str | Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones.

    Raises:
        UserError: there is none.
    """
    classes = sorted(e.name for e in os.scandir(directory) if e.is_dir() and not e.name.startswith((".", "__")))
    if not classes:
        raise UserError(f"there is no class in {directory}; expected is one folder for each class in it")
    return classes


def imagefolder(
    data_dir: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0, image_size: int = 224
) -> DatasetSplits:
    """Reads `train/`, `val/` and, if it is there, `test/` below `data_dir`; without a `test/`, val is cut in two.

    Where there is neither `train/` nor `val/`, the folders are taken for classes and all three parts made from them.

    Args:
        data_dir: the folder with the pictures.
        fractions: shares of train, val and test in what has to be split.
        seed: decides how it is split.
        image_size: passed on.

    Raises:
        UserError: a folder is missing, or it is no such folder; says which.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"there is no folder {data_dir}; {LAYOUT.format(data_dir)}")
    if not any(images_in(data_dir)):
        raise UserError(f"there is no image in {data_dir}; {LAYOUT.format(data_dir)}")
    if not (data_dir / "train").is_dir() and not (data_dir / "val").is_dir():
        dataset = list_images(data_dir, data_dir, class_folders(data_dir))
        for file in dataset.files:  # Train, Val …
            if len(Path(file).parts) > 2:
                raise UserError(f"{data_dir / file} is too deep for an image of a class; {LAYOUT.format(data_dir)}")
        check_two_classes(data_dir, dataset.classes)
        parts = complete_splits(dataset, None, None, fractions, seed)
        return DatasetSplits(*parts, dataset.classes, image_size, problems=find_problems(dataset, data_dir))
    test_dir = data_dir / "test"
    return read_folders(
        data_dir / "train",
        data_dir / "val",
        test_dir if test_dir.is_dir() else None,
        fractions=fractions,
        seed=seed,
        image_size=image_size,
    )


def read_folders(
    train_dir: str | Path,
    val_dir: str | Path,
    test_dir: str | Path | None = None,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    image_size: int = 224,
) -> DatasetSplits:
    """Reads one folder of classes for each part.

    Args:
        train_dir, val_dir, test_dir: each holds one folder a class. Without `test_dir`, `val_dir` is split.
        fractions: the last two are the shares of val and test in `val_dir`.
        seed: the same seed gives the same split.
        image_size: side in pixels that suits the pictures.

    Returns:
        The data; a class that a folder lacks is among its problems.

    Raises:
        UserError: a folder is missing, or it holds no classes.
    """
    paths = [Path(path) for path in (train_dir, val_dir, test_dir) if path]
    for path in paths:
        if not path.is_dir():
            raise UserError(f"there is no folder {path}; {LAYOUT.format(path.parent)}")
    classes = sorted({name for path in paths for name in class_folders(path)})
    check_two_classes(paths[0], classes)
    datasets = [list_images(path, path.parent, classes) for path in paths]
    problems = []
    for dataset, path in zip(datasets, paths, strict=True):
        problems += find_problems(dataset, path)
    train, val, test = (*datasets, None)[:3]
    parts = complete_splits(train, val, test, fractions, seed)
    return DatasetSplits(*parts, classes, image_size, problems=problems)


def read_labelled(folder: str | Path, classes: Sequence[str]) -> ImageDataset:
    """Read one folder of images in class folders, to score a finished network on.

    Args:
        folder: holds a folder for each of some of the classes.
        classes: of the network, by label.

    Returns:
        All of the images, labelled as in the network.

    Raises:
        UserError: there is no folder, no image, or a folder that is none of the classes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    if unknown := [name for name in class_folders(folder) if name not in classes]:
        raise UserError(
            f"{folder} holds neither the images of this run nor folders of its classes: {unknown[0]!r} is none of "
            f"{', '.join(classes)}"
        )
    dataset = list_images(folder, folder.parent, classes)
    if not dataset.files:
        raise UserError(f"there is no image in {folder}; expected are folders named {', '.join(classes)}")
    return dataset


def check_two_classes(root: Path, classes: Sequence[str]) -> None:
    """Refuse a folder with a single class.

    Raises:
        UserError: names it.
    """
    if len(classes) < 2:
        raise UserError(f"{root} holds one class only, {classes[0]!r}; at least two are needed")


def shorten(names: Sequence[str], at_most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {more} more" if more > 0 else "")
