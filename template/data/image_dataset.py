"""Data sets of image files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset

from core.errors import UserError
from core.task import Label
from data.image_io import needed_side, read_image
from data.splits import flatten_dataset

Item = tuple[Image.Image, int | torch.Tensor]


class ImageDataset(Dataset):
    """Images in files, relative to a folder; `targets` are as in `core.task.Label`, `classes` names by label."""

    def __init__(
        self, folder: Path, files: Sequence[str], targets: Sequence[Label], classes: Sequence[str]
    ) -> None:
        self.folder = Path(folder).resolve()
        self.files = list(files)
        self.targets = list(targets)
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        return self.read(index)

    def read(self, index: int, min_side: int | None = None) -> Item:
        """Return an image, decoded no smaller than `min_side`, and its label: an int, or (n_classes,) of int64."""
        image = read_image(self.folder / self.files[index], min_side)
        return image, as_label(self.targets[index])


def as_label(target: Label) -> int | torch.Tensor:
    """Return a label as an item of a data set has it."""
    return target if isinstance(target, int) else torch.tensor(target)


def read_item(dataset: Dataset, index: int, min_side: int | None) -> Item:
    """Return `dataset[index]`; a large JPEG of an `ImageDataset` is decoded smaller, see `needed_side`.

    Only exact types are unwrapped: a subclass may do more than read the file.
    """
    if type(dataset) is ImageDataset:
        return dataset.read(index, min_side)
    if type(dataset) is Subset:
        return read_item(dataset.dataset, dataset.indices[index], min_side)
    if type(dataset) is ConcatDataset:
        index = range(len(dataset))[index]  # not negative
        for part in dataset.datasets:
            if index < len(part):
                return read_item(part, index, min_side)
            index -= len(part)
    return dataset[index]


def image_sources(dataset: Dataset) -> list[str | None]:
    """Return for each item a text that changes when its image does; None for a custom data set, where it may anyway."""
    sources: list[str | None] = []
    for part, i in flatten_dataset(dataset):
        if type(part) is ImageDataset:  # a subclass may change the image
            path = part.folder / part.files[i]
            sources.append(f"{path} {file_signature(path)}")
        elif hasattr(part, "fixed_origin"):
            sources.append(f"{part.fixed_origin} {part.files[i]}")
        else:
            sources.append(None)
    return sources


def file_signature(path: Path) -> str:
    """Return size and modification time of a file, which change when it does."""
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


class UnlabelledImages(Dataset):
    """Images to predict. Items are (index, transformed image), or (index, error message) if a file cannot be read."""

    def __init__(self, files: Sequence[Path], transform: Callable[[Image.Image], Any]) -> None:
        self.files = files
        self.transform = transform
        self.min_side = needed_side(transform)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        try:
            return index, self.transform(read_image(self.files[index], self.min_side))
        except UserError as error:
            return index, str(error)
