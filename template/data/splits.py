"""The three parts of a data set: where they come from, how one is cut in two, and how they are found again."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from utils import UserError

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Data:
    """A data set in three parts, before any transform.

    Attributes:
        train, val, test: each item is (picture, label): a PIL image in RGB and an int from 0 to n_classes - 1.
        classes: names of the classes, by label.
        image_size: side of the square that suits these pictures, in pixels.
    """

    train: Dataset
    val: Dataset
    test: Dataset
    classes: list[str]
    image_size: int = 224

    def __str__(self) -> str:
        """One line for people."""
        sizes = f"{len(self.train)} images to train, {len(self.val)} to validate, {len(self.test)} to test"
        return f"{len(self.classes)} classes; {sizes}"


def file_names(dataset: Dataset) -> list[str]:
    """Names of a data set's items: its files relative to the data folder, or their numbers if it has no `files`."""
    if isinstance(dataset, Subset):
        names = file_names(dataset.dataset)
        return [names[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return [name for part in dataset.datasets for name in file_names(part)]
    return getattr(dataset, "files", None) or [str(i) for i in range(len(dataset))]


def is_there(name: str, folder: Path) -> bool:
    """Whether an item of `file_names` is in this data folder. One that has a number only may be."""
    return name.isdigit() or (folder / name).exists()


def labels(dataset: Dataset) -> list[int]:
    """Labels of a data set's items, from its `targets` (torchvision's name for them) or else item by item."""
    if isinstance(dataset, Subset):
        targets = labels(dataset.dataset)
        return [targets[i] for i in dataset.indices]
    targets = getattr(dataset, "targets", None)
    return [int(label) for label in (targets if targets is not None else (item[1] for item in dataset))]


def stratified_split(dataset: Dataset, fractions: Sequence[float], seed: int) -> list[Subset]:
    """Cuts a data set into parts that hold every class in the same proportion.

    Args:
        dataset: anything with labels, see `labels`.
        fractions: share of each part, together 1; two are meant for val and test, three for all.
        seed: the same seed gives the same parts.

    Returns:
        One Subset for each fraction; together they hold every item exactly once, each in its original order.

    Raises:
        UserError: the fractions do not add up to 1, or a part would stay empty.
    """
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0:
        raise UserError(f"a split of {tuple(fractions)} cannot be made: the fractions must add up to 1")
    targets = torch.tensor(labels(dataset))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator)
    order = order[targets[order].argsort(stable=True)]  # class after class, shuffled within each
    parts: list[list[int]] = [[] for _ in fractions]
    owed = [0.0] * len(fractions)  # how many items each part lags behind its share
    for index in order.tolist():
        owed = [lag + fraction for lag, fraction in zip(owed, fractions, strict=True)]
        part = owed.index(max(owed))
        owed[part] -= 1
        parts[part].append(index)
    for name, part, fraction in zip(SPLITS[-len(fractions) :], parts, fractions, strict=True):
        if fraction and not part:
            raise UserError(f"{len(targets)} images are too few for a split of {tuple(fractions)}: {name} stays empty")
        if fraction and (missing := len(set(targets.tolist())) - len(set(targets[part].tolist()))):
            logger.warning("%d of the classes have too few images for one in %s", missing, name)
    return [Subset(dataset, sorted(part)) for part in parts]


def restore_split(data: Data, split: dict[str, list[str]], classes: list[str]) -> Data:
    """The same data, its items dealt out as an earlier run had them.

    Args:
        data: read again from its folder; its own split does not matter.
        split: file names of each part, as in the run's `split.json`.
        classes: of the run, by label.

    Raises:
        UserError: a file of the split is not there any more, or the classes are others now.
    """
    if odd := sorted(set(classes) ^ set(data.classes)) or [name for name in classes if data.classes != classes]:
        raise UserError(
            f"this run has the classes {', '.join(classes)}, the data {', '.join(data.classes)}: {odd[0]!r}"
        )
    if split == {part: file_names(getattr(data, part)) for part in SPLITS}:
        return data
    pool = ConcatDataset([data.train, data.val, data.test])
    where = {name: i for i, name in enumerate(file_names(pool))}
    if len(where) < len(pool):
        raise UserError("the split has changed, and items without names in `files` cannot be found again")
    missing = [name for names in split.values() for name in names if name not in where]
    if missing:
        raise UserError(f"{len(missing)} images of this run are not in the data set any more, {missing[0]} among them")
    return replace(data, **{part: Subset(pool, [where[name] for name in names]) for part, names in split.items()})
