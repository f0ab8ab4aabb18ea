"""Images in files, with their labels: what most data sets are. Listing the files is for plain functions."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset

from core.errors import UserError
from data.image_io import Sides, needed_sides, read_image
from data.splits import Label, flatten_dataset

Item = tuple[Image.Image, int | torch.Tensor]


class ImageDataset(Dataset):
    """Images in files, with their labels.

    Attributes:
        folder: what `files` is relative to.
        files: such as "train/daisy/1.jpg".
        targets: for each file the class, or 0 and 1 for each class where an image can have several.
        classes: names by label.
    """

    def __init__(self, folder: Path, files: Sequence[str], targets: Sequence[Label], classes: Sequence[str]) -> None:
        self.folder = Path(folder).resolve()
        self.files = list(files)
        self.targets = list(targets)
        self.classes = list(classes)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        """Return an image and its label: an int, or (n_classes,) of int64."""
        return self.read(index)

    def read(self, index: int, sides: Sides | None = None) -> Item:
        """Return an item whose image may be decoded smaller, see `read_image`."""
        image = read_image(self.folder / self.files[index], sides)
        target = self.targets[index]
        return image, target if isinstance(target, int) else torch.tensor(target)


def reads_files(dataset: Dataset) -> bool:
    """Return whether the images of a data set are exactly those that `read_image` reads from its files.

    Those may be cached by file and decoded smaller. A subclass is custom, whatever it overrides.
    """
    return type(dataset) is ImageDataset


def path_of(dataset: Dataset, i: int) -> Path | None:
    """Return the file of an item; None unless its image is what `read_image` reads from it.

    Args:
        dataset: neither a split nor a concatenation of others.
        i: index of the item.
    """
    return dataset.folder / dataset.files[i] if reads_files(dataset) else None


def image_sources(dataset: Dataset) -> list[str | None]:
    """Return for each item what changes when its image does; None where nobody knows."""
    found: list[str | None] = []
    for part, i in flatten_dataset(dataset):
        path, origin = path_of(part, i), getattr(part, "fixed_origin", None)
        found.append(f"{origin} {part.files[i]}" if origin else f"{path} {file_signature(path)}" if path else None)
    return found


def file_signature(path: Path) -> str | None:
    """What changes when a file does; None where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_size} {status.st_mtime_ns}"


def read_item(dataset: Dataset, index: int, sides: Sides | None) -> Item:
    """Return `dataset[index]`; large JPEGs are decoded smaller if the data set does nothing but read them.

    Args:
        dataset: images and labels.
        index: of the item.
        sides: see `needed_sides`.
    """
    if reads_files(dataset):
        return dataset.read(index, sides)
    if type(dataset) is Subset:
        return read_item(dataset.dataset, dataset.indices[index], sides)
    if type(dataset) is ConcatDataset:
        index = range(len(dataset))[index]  # not negative
        part = bisect_right(dataset.cumulative_sizes, index)
        start = dataset.cumulative_sizes[part - 1] if part else 0
        return read_item(dataset.datasets[part], index - start, sides)
    return dataset[index]


class UnlabelledImages(Dataset):
    """Images without labels, as a network takes them. One that cannot be read is its error message instead."""

    def __init__(self, files: Sequence[Path], transform: Callable[[Image.Image], Any]) -> None:
        self.files, self.transform = files, transform
        self.sides = needed_sides(transform)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        """Return the index, and the transformed image or what is wrong with it."""
        try:
            return index, self.transform(read_image(self.files[index], self.sides))
        except UserError as error:
            return index, str(error)
