"""Images listed in a CSV file: `file,label[,split]`. A label may name several classes: `cat|sofa`."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.task import SEPARATOR, Task, split_names
from data.image_dataset import ImageDataset
from data.splits import FRACTIONS, SPLITS, DatasetSplits, complete_splits

logger = logging.getLogger(__name__)

SPLIT_ALIASES = {"": "train", "training": "train", "valid": "val", "validation": "val"}


class Row(NamedTuple):
    """Row of a CSV file."""

    line: int
    file: str
    label: str
    split: str
    too_long: bool

    @property
    def classes(self) -> list[str]:
        return split_names(self.label)


def csv_dataset(data_dir: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> DatasetSplits:
    """Read the data set that a CSV file lists; it is multi-label if any label names two classes.

    Args:
        data_dir: the CSV file or its folder; files are relative to the folder.
        fractions: shares of train, val and test where the column `split` does not give them.
        seed: of the split.

    Returns:
        The data; rows that cannot be used are among its problems.

    Raises:
        UserError: there is no such file, or it lacks a column, images to train on or a second class.
    """
    path = find_csv(data_dir)
    rows = read_rows(path)
    multilabel = any(len(row.classes) > 1 for row in rows)
    if not multilabel and any(SEPARATOR in row.label for row in rows):
        logger.warning("%s: %r is ignored, since no label names two classes", path, SEPARATOR)
    rows, problems = check_rows(path, rows, multilabel)
    classes = sorted({name for row in rows for name in row.classes})
    if not any(row.split == "train" for row in rows):
        raise UserError(problems[0] if problems else f"{path} lists no image to train on")
    if len(classes) < 2:
        raise UserError(problems[0] if problems else f"{path} lists one class only; at least two are needed")
    parts: dict[str, ImageDataset | None] = {}
    for split in SPLITS:
        selected = [row for row in rows if row.split == split]
        parts[split] = make_dataset(path, selected, Task(classes, multilabel)) if selected else None
    splits = complete_splits(parts["train"], parts["val"], parts["test"], fractions, seed)
    return DatasetSplits(*splits, classes, multilabel=multilabel, problems=problems)


def read_labelled_table(data_dir: Path, task: Task) -> ImageDataset:
    """Read all rows of a CSV file, whatever their split, to evaluate a trained network.

    Args:
        data_dir: the CSV file or its folder.
        task: of the network.

    Raises:
        UserError: there is no such file, a row cannot be used, or the network does not know a class.
    """
    path = find_csv(data_dir)
    rows, problems = check_rows(path, read_rows(path), task.multilabel)
    for row in rows:
        unknown = [name for name in row.classes if name not in task.classes]
        if unknown:
            problems.append(f"{path}, line {row.line}: {unknown[0]!r} is none of {', '.join(task.classes)}")
    if problems or not rows:
        raise UserError(problems[0] if problems else f"{path} lists no image")
    return make_dataset(path, rows, task)


def find_csv(path: Path) -> Path:
    """Return the CSV file itself, or the one in this folder: `labels.csv`, else the only one."""
    if path.is_file():
        return path
    found = sorted(path.glob("labels.csv")) or sorted(path.glob("*.csv"))
    if len(found) != 1:
        raise UserError(
            f"there is no {path / 'labels.csv'}; expected is a CSV file with the columns file,label[,split]"
        )
    return found[0]


def read_rows(path: Path) -> list[Row]:
    """Read a CSV file. The module csv knows line numbers and extra fields; pandas does not."""
    rows = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, restkey="extra", restval="", delimiter=max(",;\t", key=header.count))
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
            for column in "file", "label":
                if column not in reader.fieldnames:
                    raise UserError(f"{path} has no column {column!r}; expected are file,label[,split]")
            for row in reader:
                split = row.get("split", "").strip().lower()
                split = SPLIT_ALIASES.get(split, split)
                rows.append(Row(reader.line_num, row["file"].strip(), row["label"], split, "extra" in row))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV file ({error})") from error
    return rows


def check_rows(path: Path, rows: list[Row], multilabel: bool) -> tuple[list[Row], list[str]]:
    """Return the rows that can be used, and what is wrong with others."""
    usable = []
    problems = []
    for row in rows:
        problem = ""
        if row.too_long:
            problem = f"more fields than columns; put a {SEPARATOR} between several labels"
        elif len(row.classes) != 1 and not multilabel:
            problem = f"{row.file} has {len(row.classes)} labels; expected is one"
        elif row.split not in SPLITS:
            problem = f"the split {row.split!r} is none of {', '.join(SPLITS)}"
        else:
            usable.append(row)
            if not (path.parent / row.file).is_file():
                problem = f"there is no file {row.file!r}"
        if problem:
            problems.append(f"{path}, line {row.line}: {problem}")
    return usable, problems


def make_dataset(path: Path, rows: list[Row], task: Task) -> ImageDataset:
    """Return the images of rows that can be used."""
    targets = [task.encode(row.classes) for row in rows]
    return ImageDataset(path.parent, [row.file for row in rows], targets, task.classes)
