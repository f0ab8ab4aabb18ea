"""Photographs in folders: `train/<class>/*` and `val/<class>/*`, `test/` if there is one; or just `<class>/*`."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets import ImageFolder

from data.images import is_image, read_image
from data.splits import Data, stratified_split
from utils import UserError

logger = logging.getLogger(__name__)

LAYOUT = "expected are {0}/train/<class>/*.jpg and {0}/val/<class>/*.jpg, or {0}/<class>/*.jpg"


class PhotoFolder(ImageFolder):
    """torchvision's ImageFolder, which reads every kind of picture right and ignores what is hidden.

    Attributes:
        files: for each item its path relative to the data folder, such as "train/daisy/1.jpg".
    """

    def __init__(self, root: str | Path, data_dir: str | Path | None = None) -> None:
        """Lists the pictures.

        Args:
            root: holds a folder for each class.
            data_dir: what `files` is relative to; the parent of `root` by default.
        """
        super().__init__(str(root), loader=read_image, is_valid_file=is_image, allow_empty=True)
        data_dir = Path(data_dir or Path(root).parent)
        self.files = [Path(path).relative_to(data_dir).as_posix() for path, _ in self.samples]

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Names of the class folders, sorted, and their labels.

        Raises:
            UserError: there is none.
        """
        classes = sorted(e.name for e in os.scandir(directory) if e.is_dir() and not e.name.startswith((".", "__")))
        if not classes:
            raise UserError(f"there is no class in {directory}; expected is one folder for each class in it")
        return classes, {name: label for label, name in enumerate(classes)}


def imagefolder(data_dir: Path, split_seed: int = 0, image_size: int = 224) -> Data:
    """Reads `train/`, `val/` and, if it is there, `test/` below `data_dir`; without a `test/`, val is cut in two.

    Where there is neither `train/` nor `val/`, the folders are taken for classes, and seven tenths of each are for
    training.

    Args:
        data_dir: the folder with the pictures.
        split_seed: decides how what has to be split is split.
        image_size: passed on.

    Raises:
        UserError: a folder, a class or its images are missing; says which.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"there is no folder {data_dir}; {LAYOUT.format(data_dir)}")
    if not any(is_image(file) for _, _, names in os.walk(data_dir, followlinks=True) for file in names):
        raise UserError(f"there is no image in {data_dir}; {LAYOUT.format(data_dir)}")
    if not (data_dir / "train").is_dir() and not (data_dir / "val").is_dir():
        pictures = check_folder(PhotoFolder(data_dir, data_dir))
        holders = {Path(file).parent.as_posix() for file in pictures.files}
        for name in sorted(set(pictures.classes) - holders):  # Train, Val …
            raise UserError(
                f"there is no image right in {data_dir / name}, so it is no class; {LAYOUT.format(data_dir)}"
            )
        check_two_classes(pictures)
        train, val, test = stratified_split(pictures, (0.7, 0.15, 0.15), split_seed)
        return Data(train, val, test, pictures.classes, image_size)
    test_dir = data_dir / "test"
    return read_folders(
        data_dir / "train",
        data_dir / "val",
        test_dir if test_dir.is_dir() else None,
        split_seed=split_seed,
        image_size=image_size,
    )


def read_folders(
    train_dir: str | Path,
    val_dir: str | Path,
    test_dir: str | Path | None = None,
    *,
    split: Sequence[float] = (0.5, 0.5),
    split_seed: int = 0,
    image_size: int = 224,
) -> Data:
    """Reads one folder of classes for each part.

    Args:
        train_dir, val_dir, test_dir: each holds one folder a class. Without `test_dir`, `val_dir` is split.
        split: shares of val and test in `val_dir`.
        split_seed: the same seed gives the same split.
        image_size: side in pixels that suits the pictures.

    Raises:
        UserError: a folder, a class or its images are missing; says which.
    """
    folders = []
    for path in filter(None, (train_dir, val_dir, test_dir)):
        if not Path(path).is_dir():
            raise UserError(f"there is no folder {path}; {LAYOUT.format(Path(path).parent)}")
        folders.append(check_folder(PhotoFolder(path)))
    train, *others = folders
    for other in others:
        if odd := set(train.classes) ^ set(other.classes):
            name = sorted(odd)[0]
            here, there = (train, other) if name in train.classes else (other, train)
            raise UserError(f"the class {name!r} is in {here.root} but not in {there.root}; both need the same classes")
    check_two_classes(train)
    val, test = others if test_dir else stratified_split(others[0], split, split_seed)
    return Data(train, val, test, train.classes, image_size)


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
    pictures = PhotoFolder(folder)
    if strangers := [name for name in pictures.classes if name not in classes]:
        raise UserError(
            f"{folder} holds neither the images of this run nor folders of its classes: {strangers[0]!r} is none of "
            f"{', '.join(classes)}"
        )
    if not pictures.samples:
        raise UserError(f"there is no image in {folder}; expected are folders named {', '.join(classes)}")
    labels = [classes.index(name) for name in pictures.classes]
    pictures.samples = [(path, labels[label]) for path, label in pictures.samples]
    pictures.targets = [label for _, label in pictures.samples]
    pictures.classes = list(classes)
    return pictures


def check_folder(folder: PhotoFolder) -> PhotoFolder:
    """Returns the folder if each class has an image; mentions what was passed over.

    Raises:
        UserError: a class without an image.
    """
    if empty := set(range(len(folder.classes))) - set(folder.targets):
        raise UserError(f"there is no image in {folder.root}/{folder.classes[min(empty)]}; add some or remove it")
    strangers = [
        name
        for _, _, names in os.walk(folder.root, followlinks=True)
        for name in names
        if not is_image(name) and not name.startswith(".") and name not in ("Thumbs.db", "desktop.ini")
    ]
    if strangers:
        logger.warning("passed over in %s, being no images: %s", folder.root, shorten(strangers))
    return folder


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
