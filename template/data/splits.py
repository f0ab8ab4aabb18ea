"""The three parts of a data set: where they come from, how one is cut in two, and how they are found again."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from core.errors import UserError
from core.task import Label, Task, classes_of

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
FRACTIONS = (0.7, 0.15, 0.15)  # of a data set that comes in one piece


@dataclass(frozen=True)
class DatasetSplits:
    """A data set in three parts, before any transform.

    Attributes:
        train, val, test: each item is (picture, label): a PIL image in RGB, and an int from 0 to n_classes - 1, or
            where `multilabel` is set a tensor (n_classes,) of int64 with 1 for each class that is in the picture.
        classes: names of the classes, by label.
        image_size: side of the square that suits these pictures, in pixels.
        augmentation: the one that suits them, a key of `AUGMENTATIONS`.
        multilabel: whether a picture can have any number of classes.
        problems: what has to be mended before anything can be trained; each one a line for people.
        findings: of `data.check`, once it has looked at the images.
        class_weights: (n_classes,), how much each class counts in the loss (default: the same).
        image_weights: (N,), how often each training image is drawn, relative to the others (default: once an epoch).
    """

    train: Dataset
    val: Dataset
    test: Dataset
    classes: list[str]
    image_size: int = 224
    augmentation: str = "photographs"
    multilabel: bool = False
    problems: Sequence[str] = ()
    findings: Any = None
    class_weights: Any = None
    image_weights: Any = None

    @property
    def task(self) -> Task:
        """What is to be predicted."""
        return Task(self.classes, self.multilabel)

    @property
    def statistics(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation of each channel of the training images, from 0 to 1; None before a check."""
        return (self.findings.mean, self.findings.std) if self.findings else None

    def __str__(self) -> str:
        """One line for people."""
        sizes = f"{len(self.train)} images to train, {len(self.val)} to validate, {len(self.test)} to test"
        return f"{len(self.classes)} classes{', any number on an image' if self.multilabel else ''}; {sizes}"


def describe_split(data: DatasetSplits) -> dict[str, Any]:
    """Return what a run keeps of its data, by the names of the JSON files: its classes, and the files of each part."""
    files = {**data.task.files, "split.json": {part: get_file_names(getattr(data, part)) for part in SPLITS}}
    if data.findings:
        files["check.json"] = asdict(data.findings)
    return files


def flatten_dataset(dataset: Dataset) -> list[tuple[Dataset, int]]:
    """Return for each item the data set that it came from, before any split or concatenation, and its index there."""
    if isinstance(dataset, Subset):
        items = flatten_dataset(dataset.dataset)
        return [items[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return [item for part in dataset.datasets for item in flatten_dataset(part)]
    return [(dataset, i) for i in range(len(dataset))]


def get_file_names(dataset: Dataset) -> list[str]:
    """Names of a data set's items: its files relative to their folder, or their numbers if it has no `files`."""
    return [part.files[i] if getattr(part, "files", None) else str(i) for part, i in flatten_dataset(dataset)]


def labels(dataset: Dataset) -> list[Label]:
    """Labels of a data set's items, from its `targets` (torchvision's name for them) or else item by item."""
    if isinstance(dataset, Subset):
        targets = labels(dataset.dataset)
        return [targets[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return [label for part in dataset.datasets for label in labels(part)]
    targets = getattr(dataset, "targets", None)
    if targets is None:
        targets = [torch.as_tensor(dataset[i][1]).tolist() for i in range(len(dataset))]
    targets = targets.tolist() if isinstance(targets, torch.Tensor) else targets
    return [tuple(label) if isinstance(label, (list, tuple)) else int(label) for label in targets]


def stratified_split(dataset: Dataset, fractions: Sequence[float], seed: int) -> list[Subset]:
    """Cuts a data set into parts that hold every class in the same proportion.

    Args:
        dataset: anything with labels, see `labels`; several on an image count as a class of their own.
        fractions: share of each part, together 1.
        seed: the same seed gives the same parts.

    Returns:
        One Subset for each fraction; together they hold every item exactly once, each in its original order.

    Raises:
        UserError: the fractions do not add up to 1, or a part would stay empty.
    """
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0:
        raise UserError(f"a split of {tuple(fractions)} cannot be made: the fractions must add up to 1")
    targets = labels(dataset)
    kinds = {label: i for i, label in enumerate(sorted(set(targets)))}
    codes = torch.tensor([kinds[label] for label in targets])
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    order = order[codes[order].argsort(stable=True)]  # class after class, shuffled within each
    parts: list[list[int]] = [[] for _ in fractions]
    owed = [0.0] * len(fractions)  # how many items each part lags behind its share
    for index in order.tolist():
        owed = [lag + fraction for lag, fraction in zip(owed, fractions, strict=True)]
        behind = owed.index(max(owed))
        owed[behind] -= 1
        parts[behind].append(index)
    everything = {i for label in kinds for i in classes_of(label)}
    for part, fraction in zip(parts, fractions, strict=True):
        if fraction and not part:
            raise UserError(f"{len(targets)} images are too few for a split of {tuple(fractions)}: a part stays empty")
        if fraction and (missing := everything - {i for index in part for i in classes_of(targets[index])}):
            logger.warning("%d of the classes have too few images for every part of the split", len(missing))
    return [Subset(dataset, sorted(part)) for part in parts]


def complete_splits(
    train: Dataset,
    val: Dataset | None,
    test: Dataset | None,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> tuple[Dataset, Dataset, Dataset]:
    """Makes the parts that a data set comes without.

    Args:
        train, val, test: what there is. Without a test set val is cut in two, without val a tenth of train is taken,
            without either all three are made from train.
        fractions: shares of train, val and test.
        seed: decides which items go where.

    Returns:
        Train, val and test.

    Raises:
        UserError: there are too few items, or the fractions are no fractions.
    """
    if val is None and test is None:
        return tuple(stratified_split(train, fractions, seed))
    if val is None:
        train, val = stratified_split(train, (0.9, 0.1), seed)
    if test is None:
        share = fractions[1] / (fractions[1] + fractions[2])  # of train, val and test
        val, test = stratified_split(val, (share, 1 - share), seed)
    return train, val, test


def choose_fold(data: DatasetSplits, i: int, k: int, seed: int) -> DatasetSplits:
    """The same data, with one of k equal parts of train and val together as val, and the others as train.

    Args:
        data: its test set stays as it is.
        i: which part, from 1.
        k: how many.
        seed: decides which item is in which; stratified.
    """
    pool = ConcatDataset([data.train, data.val])
    parts = stratified_split(pool, [1 / k] * k, seed)
    rest = sorted(index for j, part in enumerate(parts, start=1) if j != i for index in part.indices)
    return replace(data, train=Subset(pool, rest), val=parts[i - 1])


def check_problems(data: DatasetSplits) -> None:
    """Refuses data that has problems.

    Raises:
        UserError: names the first one, and says how many there are.
    """
    if data.problems:
        others = f" ({len(data.problems) - 1} more such problems)" if len(data.problems) > 1 else ""
        raise UserError(f"{data.problems[0]}{others}")


def restore_split(data: DatasetSplits, split: dict[str, list[str]], classes: list[str]) -> DatasetSplits:
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
    if split == {part: get_file_names(getattr(data, part)) for part in SPLITS}:
        return data
    pool = ConcatDataset([data.train, data.val, data.test])
    where = {name: i for i, name in enumerate(get_file_names(pool))}
    if len(where) < len(pool):
        raise UserError("the split has changed, and items that do not have names of their own cannot be found again")
    missing = [name for names in split.values() for name in names if name not in where]
    if missing:
        raise UserError(f"{len(missing)} images of this run are not in the data set any more, {missing[0]} among them")
    return replace(data, **{part: Subset(pool, [where[name] for name in names]) for part, names in split.items()})
