"""Images listed in a CSV file: `file,label[,split]`. A label may name several classes: `cat|sofa`."""

from pathlib import Path

import pandas as pd

from core.errors import UserError
from core.task import SEPARATOR, Task, split_names
from data.image_dataset import ImageDataset
from data.splits import SPLITS, DatasetSplits

COLUMNS = ["file", "label", "split"]
SPLIT_ALIASES = {"": "train", "training": "train", "valid": "val", "validation": "val"}
EXPECTED = f"expected are the columns file,label[,split], and a {SEPARATOR} between several labels"


def csv_dataset(data_dir: Path) -> DatasetSplits:
    """Read the data set that a CSV file lists; it is multi-label if any label names two classes.

    Args:
        data_dir: the CSV file or its folder; files are relative to the folder.

    Raises:
        UserError: there is no such file, or it lacks a column, images to train on or a second class.
    """
    path = find_csv(data_dir)
    table = read_table(path)
    multilabel = bool((table["classes"].str.len() > 1).any())
    table, problems = check_rows(path, table, multilabel)
    classes = sorted(set().union(*table["classes"]))
    if not (table["split"] == "train").any():
        raise UserError(problems[0] if problems else f"{path} lists no image to train on")
    if len(classes) < 2:
        raise UserError(problems[0] if problems else f"{path} lists one class only; at least two are needed")
    task = Task(classes, multilabel)
    parts = [make_dataset(path, table[table["split"] == split], task) for split in SPLITS]
    train, val, test = [part if len(part) else None for part in parts]
    return DatasetSplits(train, val, test, classes, multilabel=multilabel, problems=problems)


def read_labelled_table(data_dir: Path, task: Task) -> ImageDataset:
    """Read all rows of a CSV file, whatever their split, to evaluate a trained network on them.

    Raises:
        UserError: there is no such file, a row cannot be used, or the network does not know a class.
    """
    path = find_csv(data_dir)
    table, problems = check_rows(path, read_table(path), task.multilabel)
    unknown = set().union(*table["classes"]) - set(task.classes)
    if unknown:
        problems.append(f"{path}: the class {min(unknown)!r} is none of {', '.join(task.classes)}")
    if problems or table.empty:
        raise UserError(problems[0] if problems else f"{path} lists no image")
    return make_dataset(path, table, task)


def find_csv(path: Path) -> Path:
    """Return the CSV file itself, or the one in this folder: `labels.csv`, else the only one."""
    if path.is_file():
        return path
    found = list(path.glob("labels.csv")) or list(path.glob("*.csv"))
    if len(found) != 1:
        raise UserError(f"there is no {path / 'labels.csv'}; {EXPECTED}")
    return found[0]


def read_table(path: Path) -> pd.DataFrame:
    """Return the columns file, label, split and classes (lists of names), indexed by the row in a spreadsheet."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        # Classes may be called NA or 001.
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, skip_blank_lines=False)
        if not isinstance(table.index, pd.RangeIndex):
            raise ValueError("the first row has more fields than the header")
        table.columns = table.columns.str.strip().str.lower()
        if table.columns.has_duplicates:
            raise ValueError("two columns have the same name")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a CSV file ({error}); {EXPECTED}") from error
    for column in "file", "label":
        if column not in table:
            raise UserError(f"{path} has no column {column!r}; {EXPECTED}")
    table = table.reindex(columns=COLUMNS, fill_value="").fillna("")
    for column in COLUMNS:
        table[column] = table[column].str.strip()
    table["split"] = table["split"].str.lower().replace(SPLIT_ALIASES)
    table["classes"] = table["label"].map(split_names)
    table.index += 2
    return table[table["file"] + table["label"] != ""]


def check_rows(path: Path, table: pd.DataFrame, multilabel: bool) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows that can be used, and what is wrong with others; a missing file is found by the check, too."""
    usable = []
    problems = []
    for row in table.itertuples():
        if len(row.classes) != 1 and not multilabel:
            problem = f"{row.file} has {len(row.classes)} labels; expected is one"
        elif row.split not in SPLITS:
            problem = f"the split {row.split!r} is none of {', '.join(SPLITS)}"
        else:
            usable.append(row.Index)
            if (path.parent / row.file).is_file():
                continue
            problem = f"there is no file {row.file!r}"
        problems.append(f"{path}, row {row.Index}: {problem}")
    return table.loc[usable], problems


def make_dataset(path: Path, table: pd.DataFrame, task: Task) -> ImageDataset:
    """Return the images of rows that can be used."""
    targets = table["classes"].map(task.encode)
    return ImageDataset(path.parent, table["file"], targets, task.classes)
