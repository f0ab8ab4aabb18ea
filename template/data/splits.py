"""The three parts of a data set: splitting, folds, and restoring the split of a run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from core.errors import UserError
from core.task import Label, Task

SPLITS = ("train", "val", "test")
FRACTIONS = (0.7, 0.15, 0.15)  # for a data set that comes without a split


@dataclass(frozen=True)
class DatasetSplits:
    """Training, validation and test set, before any transform.

    Items are (image, label): a PIL image in RGB; an int, or with `multilabel` an int64 tensor (n_classes,) of 0 and 1.
    A function of `DATASETS` may leave out val, test or both, see `complete_splits`.
    """

    train: Dataset
    val: Dataset | None
    test: Dataset | None
    classes: list[str]  # names by label
    image_size: int = 224  # suggested side of the network's input, in pixels
    augmentation: str = "photographs"  # suggested
    multilabel: bool = False  # whether an image can have any number of classes
    problems: Sequence[str] = ()  # to be fixed before training
    findings: Any = None  # of `data.check`
    class_weights: Any = None  # (n_classes,) in the loss (default: equal)
    image_weights: Any = None  # (N,) how often each training image is drawn (default: once an epoch)

    @property
    def task(self) -> Task:
        return Task(self.classes, self.multilabel)

    @property
    def statistics(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation of each channel of the training images, from 0 to 1; None before a check."""
        return (self.findings.mean, self.findings.std) if self.findings else None

    @property
    def file_names(self) -> dict[str, list[str]]:
        """Content of a run's `split.json`."""
        return {part: get_file_names(getattr(self, part)) for part in SPLITS}

    def __str__(self) -> str:
        several = ", any number per image" if self.multilabel else ""
        sizes = f"{len(self.train)} images to train, {len(self.val)} to validate, {len(self.test)} to test"
        return f"{len(self.classes)} classes{several}; {sizes}"


def describe_split(data: DatasetSplits) -> dict[str, Any]:
    """Return the JSON files about the data in a run folder: content by name."""
    files = {**data.task.files, "split.json": data.file_names}
    if data.findings:
        files["check.json"] = asdict(data.findings)
    return files


def flatten_dataset(dataset: Dataset) -> list[tuple[Dataset, int]]:
    """Return for each item the data set it comes from, below any Subset or ConcatDataset, and its index there."""
    if isinstance(dataset, Subset):
        items = flatten_dataset(dataset.dataset)
        return [items[i] for i in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        return [item for part in dataset.datasets for item in flatten_dataset(part)]
    return [(dataset, i) for i in range(len(dataset))]


def get_file_names(dataset: Dataset) -> list[str]:
    """Return the file name of each item, relative to the data folder, or its index if the data set has no `files`."""
    names = []
    for part, i in flatten_dataset(dataset):
        names.append(part.files[i] if hasattr(part, "files") else str(i))
    return names


def get_labels(dataset: Dataset) -> list[Label]:
    """Return the label of each item, from the data set's `targets`, or by reading the item if there are none."""
    labels: list[Label] = []
    for part, i in flatten_dataset(dataset):
        target = part.targets[i] if hasattr(part, "targets") else part[i][1]
        label = np.asarray(target).tolist()
        labels.append(tuple(label) if isinstance(label, list) else int(label))
    return labels


def stratified_split(dataset: Dataset, fractions: Sequence[float], seed: int) -> list[Subset]:
    """Split a data set into one part for each fraction, with the same proportions of classes in all parts.

    Each item is in exactly one part, in the original order. With `multilabel`, each combination of classes is a class.

    Raises:
        UserError: the fractions do not add up to 1, or a part would be empty.
    """
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0:
        raise UserError(f"invalid split {tuple(fractions)}: the fractions must add up to 1")
    targets = np.array(get_labels(dataset))
    _, strata = np.unique(targets, axis=0, return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator).numpy()
    order = order[strata.ravel()[order].argsort(kind="stable")]  # class after class, shuffled within each
    parts: list[list[int]] = [[] for _ in fractions]
    deficit = np.zeros(len(fractions))  # by how many items each part is behind its fraction
    for index in order.tolist():
        deficit += fractions
        part = deficit.argmax()
        deficit[part] -= 1
        parts[part].append(index)
    if not all(parts):
        raise UserError(
            f"{len(targets)} images are too few for a split {tuple(fractions)}: a part would be empty"
        )
    return [Subset(dataset, sorted(part)) for part in parts]


def complete_splits(data: DatasetSplits, fractions: Sequence[float], seed: int) -> DatasetSplits:
    """Return the data with the parts that it comes without; `fractions` are those of train, val and test.

    Without test, val is split in two; without val, a tenth of train is used; without both, train is split in three.
    """
    train, val, test = data.train, data.val, data.test
    if val is None and test is None:
        train, val, test = stratified_split(train, fractions, seed)
    if val is None:
        train, val = stratified_split(train, (0.9, 0.1), seed)
    if test is None:
        val_fraction = fractions[1] / (fractions[1] + fractions[2])
        val, test = stratified_split(val, (val_fraction, 1 - val_fraction), seed)
    return replace(data, train=train, val=val, test=test)


def choose_fold(data: DatasetSplits, i: int, k: int, seed: int) -> DatasetSplits:
    """Return the data with fold i of k (from 1) of train and val together as val, and the other folds as train."""
    pool = ConcatDataset([data.train, data.val])
    folds = stratified_split(pool, [1 / k] * k, seed)
    val = folds.pop(i - 1)
    train = [index for fold in folds for index in fold.indices]
    return replace(data, train=Subset(pool, sorted(train)), val=val)


def check_problems(data: DatasetSplits) -> None:
    """Raise a UserError with the first problem of the data, if any, and the number of the others."""
    if data.problems:
        more = len(data.problems) - 1
        raise UserError(data.problems[0] + (f" (and {more} more)" if more else ""))


def restore_split(data: DatasetSplits, split: dict[str, list[str]], task: Task) -> DatasetSplits:
    """Return the data, split as in an earlier run, whose file names of each part and task are given.

    Raises:
        UserError: a file of the split is missing, or the classes differ.
    """
    if data.multilabel != task.multilabel:
        raise UserError("this run and its data differ in whether an image can have several classes")
    if data.classes != task.classes:
        raise UserError(f"this run has the classes {task.classes}, but the data has {data.classes}")
    if data.file_names == split:
        return data
    pool = ConcatDataset([data.train, data.val, data.test])
    index = {name: i for i, name in enumerate(get_file_names(pool))}
    if len(index) < len(pool):
        raise UserError("the split has changed and cannot be restored: the items have no unique file names")
    missing = sorted(set().union(*split.values()) - set(index))
    if missing:
        raise UserError(
            f"{len(missing)} images of this run are not in the data set any more, such as {missing[0]}"
        )
    parts = {}
    for part, names in split.items():
        parts[part] = Subset(pool, [index[name] for name in names])
    return replace(data, **parts)
