"""Photographs in folders: `train/<class>/*` and `val/<class>/*`, `test/` if there is one; or just `<class>/*`."""

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from core.errors import UserError
from data.image_io import images_in, is_image, read_image, walk_folders
from data.splits import FRACTIONS, Data, fill_in

logger = logging.getLogger(__name__)

LAYOUT = "expected are {0}/train/<class>/*.jpg and {0}/val/<class>/*.jpg, or {0}/<class>/*.jpg"


class PhotoFolder(ImageFolder):
    """torchvision's ImageFolder, which reads every kind of picture right and ignores what is hidden.

    Attributes:
        files: for each item its path relative to the data folder, such as "train/daisy/1.jpg".
    """

    def __init__(self, root: str | Path, data_dir: str | Path | None = None, classes: Sequence[str] = ()) -> None:
        """Lists the pictures.

        Args:
            root: holds a folder for each class.
            data_dir: what `files` is relative to; the parent of `root` by default.
            classes: names by label; those of the folders by default.

        Raises:
            UserError: there is no class folder.
        """
        self.known = list(classes)
        super().__init__(str(root), loader=partial(read_image, draft=type(self) is PhotoFolder))
        data_dir = Path(data_dir or Path(root).parent)
        self.files = [Path(path).relative_to(data_dir).as_posix() for path, _ in self.samples]

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Names of the classes and their labels."""
        classes = self.known or class_folders(directory)
        return classes, {name: label for label, name in enumerate(classes)}

    @staticmethod
    def make_dataset(directory: str, class_to_idx: dict[str, int], *_: Any, **__: Any) -> list[tuple[str, int]]:
        """Return the paths of the images and their labels; torchvision's own follows links in circles."""
        items = []
        for path in images_in(directory):
            name = Path(path).relative_to(directory).parts[0]  # of the class folder
            if name in class_to_idx:
                items.append((path, class_to_idx[name]))
        return sorted(items, key=lambda item: (item[1], os.path.split(item[0])))

    def problems(self) -> list[str]:
        """A line for each class that has no picture here; mentions files that are passed over."""
        strangers = [
            name
            for _, names in walk_folders(self.root)
            for name in names
            if not is_image(name) and not name.startswith(".") and name not in ("Thumbs.db", "desktop.ini")
        ]
        if strangers:
            logger.warning("passed over in %s, being no images: %s", self.root, shorten(strangers))
        empty = [self.classes[label] for label in sorted(set(range(len(self.classes))) - set(self.targets))]
        return [f"the class {name!r} has no image in {self.root}; add some, or remove the class" for name in empty]


def class_folders(directory: str | Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones.

    Raises:
        UserError: there is none.
    """
    classes = sorted(e.name for e in os.scandir(directory) if e.is_dir() and not e.name.startswith((".", "__")))
    if not classes:
        raise UserError(f"there is no class in {directory}; expected is one folder for each class in it")
    return classes


def imagefolder(data_dir: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0, image_size: int = 224) -> Data:
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
        pictures = PhotoFolder(data_dir, data_dir)
        for file in pictures.files:  # Train, Val …
            if len(Path(file).parts) > 2:
                raise UserError(f"{data_dir / file} is too deep for an image of a class; {LAYOUT.format(data_dir)}")
        check_two_classes(pictures)
        parts = fill_in(pictures, None, None, fractions, seed)
        return Data(*parts, pictures.classes, image_size, problems=pictures.problems(), folder=data_dir)
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
) -> Data:
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
    folders = [PhotoFolder(path, classes=classes) for path in paths]
    check_two_classes(folders[0])
    problems = [problem for folder in folders for problem in folder.problems()]
    train, val, test = (*folders, None)[:3]
    parts = fill_in(train, val, test, fractions, seed)
    return Data(*parts, classes, image_size, problems=problems, folder=paths[0].parent)


def read_labelled(folder: str | Path, classes: Sequence[str]) -> PhotoFolder:
    """Reads one folder of pictures in class folders, to score a finished network on.

    Args:
        folder: holds a folder for each of some of the classes.
        classes: of the network, by label.

    Returns:
        All of the pictures, labelled as in the network.

    Raises:
        UserError: there is no folder, no picture, or a folder that is none of the classes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    if strangers := [name for name in class_folders(folder) if name not in classes]:
        raise UserError(
            f"{folder} holds neither the images of this run nor folders of its classes: {strangers[0]!r} is none of "
            f"{', '.join(classes)}"
        )
    pictures = PhotoFolder(folder, classes=classes)
    if not pictures.samples:
        raise UserError(f"there is no image in {folder}; expected are folders named {', '.join(classes)}")
    return pictures


def check_two_classes(folder: PhotoFolder) -> None:
    """Refuses a folder with a single class.

    Raises:
        UserError: there is nothing to tell apart.
    """
    if len(folder.classes) < 2:
        raise UserError(f"{folder.root} holds one class only, {folder.classes[0]!r}; at least two are needed")


def shorten(names: Sequence[str], at_most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {more} more" if more > 0 else "")
