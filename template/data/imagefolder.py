"""Images in class folders: `train/<class>/*`, `val/<class>/*` and optionally `test/<class>/*`; or just `<class>/*`."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from data.image_dataset import ImageDataset
from data.image_io import is_image, walk_folders
from data.splits import SPLITS, DatasetSplits

logger = logging.getLogger(__name__)

LAYOUT = "expected {0}/train/<class>/*.jpg and {0}/val/<class>/*.jpg, or {0}/<class>/*.jpg"


def imagefolder(data_dir: Path) -> DatasetSplits:
    """Read the class folders in `train/`, `val/` and `test/`, or if there is no such folder in `data_dir` itself."""
    train_dir, val_dir, test_dir = [data_dir / split for split in SPLITS]
    if not train_dir.is_dir() and not val_dir.is_dir():
        return read_folders(data_dir)
    return read_folders(train_dir, val_dir, test_dir if test_dir.is_dir() else None)


def read_folders(
    train_dir: str | Path, val_dir: str | Path | None = None, test_dir: str | Path | None = None
) -> DatasetSplits:
    """Read folders of class folders.

    Raises:
        UserError: a folder is missing, holds no image in a class folder, or there are fewer than two classes.
    """
    folders = [Path(folder) for folder in (train_dir, val_dir, test_dir) if folder]
    layout = LAYOUT.format(folders[0].parent if val_dir else folders[0])
    names: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; {layout}")
        names.update(class_folders(folder))
    classes = sorted(names)

    parts = []
    problems = []
    for folder in folders:
        part = list_images(folder, folder.parent if val_dir else folder, classes)
        if not part.files:
            raise UserError(f"there is no image in class folders in {folder}; {layout}")
        found = set(part.targets)
        for label, name in enumerate(classes):
            if label not in found:
                problems.append(f"the class {name!r} has no image in {folder}; add some, or remove the class")
        parts.append(part)
    if len(classes) < 2:
        raise UserError(f"{folders[0]} has only one class, {classes[0]!r}; at least two are needed")
    nested = [file for file in parts[0].files if file.count("/") > 1]  # the classes may be Train and Val
    if nested and not val_dir:
        raise UserError(f"{folders[0] / nested[0]} is nested too deep for an image of a class; {layout}")
    train, val, test = [*parts, None, None][:3]
    return DatasetSplits(train, val, test, classes, problems=problems)


def class_folders(directory: str | Path) -> list[str]:
    """Return the names of the folders in a directory, sorted, without hidden ones."""
    names = [path.name for path in Path(directory).iterdir() if path.is_dir()]
    return sorted(name for name in names if not name.startswith((".", "__")))


def list_images(root: Path, base: Path, classes: Sequence[str]) -> ImageDataset:
    """List the images in the class folders of `root`, at any depth, in the order of torchvision's ImageFolder.

    Args:
        base: folder that `files` of the result are relative to.
        classes: names by label; other folders are ignored.
    """
    labels = {name: label for label, name in enumerate(classes)}
    items = []
    ignored = []
    for folder, names in walk_folders(root):
        class_name = os.path.relpath(folder, root).split(os.sep)[0]
        for name in names:
            if is_image(name) and class_name in labels:
                items.append((labels[class_name], folder, name))
            elif not is_image(name) and not name.startswith("."):
                ignored.append(name)
    if ignored:
        logger.warning("ignored in %s, not images: %s", root, shorten(ignored))
    items.sort()
    files = [Path(folder, name).relative_to(base).as_posix() for _, folder, name in items]
    return ImageDataset(base, files, [label for label, _, _ in items], classes)


def read_labelled(folder: str | Path, classes: Sequence[str]) -> ImageDataset:
    """Read a folder with a folder for some or all of the classes, to evaluate a trained network on it.

    Raises:
        UserError: there is no folder or image, or a folder is not one of the classes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    known = ", ".join(classes)
    for name in class_folders(folder):
        if name not in classes:
            raise UserError(
                f"{folder} has neither the images of this run nor its classes: {name!r} is none of {known}"
            )
    dataset = list_images(folder, folder.parent, classes)
    if not dataset.files:
        raise UserError(f"there is no image in {folder}; expected folders named {known}")
    return dataset


def shorten(names: Sequence[str], at_most: int = 3) -> str:
    """Join the first few names, and say how many more there are."""
    text = ", ".join(names[:at_most])
    more = len(names) - at_most
    return f"{text} and {more} more" if more > 0 else text
