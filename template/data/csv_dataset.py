"""Pictures listed in a table: `file,label` and, if wanted, `split`. A label may name several classes: `cat|sofa`."""

import csv
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError
from core.task import SEPARATOR, Label, Task, split_names
from data.image_dataset import ImageDataset
from data.splits import FRACTIONS, SPLITS, DatasetSplits, complete_splits

SPLIT_NAMES = {**{name: name for name in SPLITS}, "valid": "val", "validation": "val", "training": "train"}


def table(data_dir: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> DatasetSplits:
    """Reads a CSV file with the columns `file`, `label` and, if there is one, `split` (train, val, test).

    Files are relative to the table. Where a label holds a `|`, pictures can have any number of classes, and an empty
    label means none of them. Parts that `split` does not name are made from those it does.

    Args:
        data_dir: the table, or the folder that holds it.
        fractions: shares of train, val and test where the table has no split.
        seed: decides how it is split.

    Returns:
        The data; rows that cannot be used are among its problems, by their line in the file.

    Raises:
        UserError: there is no table, or it lacks a column.
    """
    path = find_table(Path(data_dir))
    parts, multilabel, problems = read_parts(path)
    if "train" not in parts:
        raise UserError(f"{problems[0] if problems else f'{path} lists no image to train on'}")
    classes = sorted({name for part in parts.values() for _, names in part for name in names})
    if len(classes) < 2:
        what = problems[0] if problems else f"{path} names {len(classes)} class"
        raise UserError(f"{what}; at least two are needed")
    task = Task(classes, multilabel)
    train, val, test = (
        ImageDataset(path.parent, *encode(parts[part], task), classes) if part in parts else None for part in SPLITS
    )
    train, val, test = complete_splits(train, val, test, fractions, seed)
    return DatasetSplits(train, val, test, classes, multilabel=multilabel, problems=problems)


def read_labelled_table(data_dir: Path, task: Task) -> ImageDataset:
    """Read all rows of a table, to score a finished network on.

    Args:
        data_dir: the table, or the folder that holds it.
        task: of the network.

    Raises:
        UserError: there is no table, a row cannot be used, or it names a class that the network does not know.
    """
    path = find_table(Path(data_dir))
    parts, _, problems = read_parts(path, task.multilabel)
    rows = [row for part in parts.values() for row in part]
    problems += [
        f"{path}: {name!r} is none of {', '.join(task.classes)}"
        for _, names in rows
        for name in names
        if name not in task.classes
    ]
    if problems or not rows:
        raise UserError(problems[0] if problems else f"{path} lists no image")
    return ImageDataset(path.parent, *encode(rows, task), task.classes)


Row = tuple[str, list[str]]  # a file, and the names of its classes


def read_parts(path: Path, multilabel: bool | None = None) -> tuple[dict[str, list[Row]], bool, list[str]]:
    """What a table lists: the rows of each part, whether an image has several classes, and rows that cannot be used.

    Args:
        path: the table.
        multilabel: whether an image can have several classes; where that is not known, the table tells.
    """
    rows = read_rows(path)
    if multilabel is None:
        multilabel = any(SEPARATOR in row["label"] for _, row in rows)
    parts: dict[str, list[Row]] = {}
    problems = []
    for line, row in rows:
        names = split_names(row["label"])
        split = row.get("split", "").lower()
        if "more" in row:
            problems.append(f"{path}, line {line}: more fields than columns; put a | between several labels")
        elif not names and not multilabel:
            problems.append(f"{path}, line {line}: {row['file']} has no label")
        elif len(names) > 1 and not multilabel:
            problems.append(f"{path}, line {line}: {row['file']} has several labels; the network knows of one")
        elif split and split not in SPLIT_NAMES:
            problems.append(f"{path}, line {line}: the split {split!r} is none of {', '.join(SPLITS)}")
        else:
            if not (path.parent / row["file"]).is_file():
                problems.append(f"{path}, line {line}: there is no file {row['file']!r}")
            parts.setdefault(SPLIT_NAMES.get(split, "train"), []).append((row["file"], names))
    return parts, multilabel, problems


def encode(rows: Sequence[Row], task: Task) -> tuple[list[str], list[Label]]:
    """Return files and labels of some rows."""
    return [file for file, _ in rows], [task.encode(names) for _, names in rows]


def find_table(path: Path) -> Path:
    """The table itself, or the one in this folder: `labels.csv`, else the only CSV file.

    Raises:
        UserError: there is none, or several.
    """
    if path.is_file():
        return path
    found = sorted(path.glob("*.csv")) if path.is_dir() else []
    if (path / "labels.csv") in found:
        return path / "labels.csv"
    if len(found) != 1:
        raise UserError(f"there is no {path / 'labels.csv'}; expected is a table with the columns file,label[,split]")
    return found[0]


def read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Each row with its line in the file; names of columns in lower case, everything stripped.

    Raises:
        UserError: it is no table, or a column is missing.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, restkey="more", delimiter=max(",;\t", key=header.count))
            columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
            if missing := {"file", "label"} - set(columns):
                raise UserError(f"{path} has no column {sorted(missing)[0]!r}; expected are file,label[,split]")
            reader.fieldnames = columns
            return [
                (
                    reader.line_num,
                    {
                        name: "".join(row[name] or "").strip()
                        for name in ("file", "label", "split", "more")
                        if name in row
                    },
                )
                for row in reader
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error})") from error
