"""Tiny ImageNet as published, as a zip file or unpacked: nothing in it is moved."""

import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

from torchvision.datasets.utils import extract_archive

from core.errors import UserError, format_error
from data.image_dataset import ImageDataset
from data.splits import FRACTIONS, DatasetSplits, complete_splits

NAME = "tiny-imagenet-200"
URL = f"http://cs231n.stanford.edu/{NAME}.zip"


def tiny_imagenet(data_dir: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> DatasetSplits:
    """Reads `train/<wnid>/images/*` and `val/images/*` with its `val_annotations.txt`; names come from `words.txt`.

    The published test set has no labels, so val is the test set here, whole, and a tenth of train is for validation.

    Args:
        data_dir: the folder tiny-imagenet-200, or the one that holds it, or the one that holds its zip file, which is
            then unpacked beside it.
        fractions: unused; the sizes of the parts are given.
        seed: decides which tenth of train is for validation.

    Returns:
        The data; pictures without a label and labels without a picture are among its problems.

    Raises:
        UserError: it is not there.
    """
    root = find_root(Path(data_dir))
    wnids = sorted(entry.name for entry in os.scandir(root / "train") if entry.is_dir())
    files = [f"train/{wnid}/images/{name}" for wnid in wnids for name in pictures_in(root / "train" / wnid / "images")]
    where = {wnid: label for label, wnid in enumerate(wnids)}
    classes = names_of(wnids, root / "words.txt")
    train = ImageDataset(root, files, [where[file.split("/")[1]] for file in files], classes)

    annotations = root / "val" / "val_annotations.txt"
    lines = annotations.read_text(encoding="utf-8", errors="replace").splitlines()
    known = {
        name: where.get(rest.split("\t")[0]) for name, tab, rest in (line.partition("\t") for line in lines) if tab
    }
    there = pictures_in(root / "val" / "images")
    problems = [f"{annotations}: {name} has a class that train lacks" for name in known if known[name] is None]
    problems += [f"{annotations}: there is no picture {name}" for name in sorted(set(known) - set(there))]
    problems += [f"{annotations} does not list {name}" for name in there if name not in known]
    usable = [name for name in there if known.get(name) is not None]
    test = ImageDataset(root, [f"val/images/{name}" for name in usable], [known[name] for name in usable], classes)
    train, val, test = complete_splits(train, None, test, fractions, seed)
    return DatasetSplits(train, val, test, classes, 64, "small", problems=problems)


def find_root(data_dir: Path) -> Path:
    """The published folder; unpacks it if there is only the zip file.

    Raises:
        UserError: there is neither.
    """
    for root in (data_dir, data_dir / NAME):
        if (root / "train").is_dir() and (root / "val" / "val_annotations.txt").is_file():
            return root
    archive = data_dir if data_dir.suffix == ".zip" else data_dir / f"{NAME}.zip"
    if not archive.is_file():
        raise UserError(f"there is no Tiny ImageNet in {data_dir}; download {URL} and put it there, or unpack it there")
    unfinished = Path(tempfile.mkdtemp(prefix=NAME, dir=archive.parent))
    try:
        extract_archive(str(archive), str(unfinished))
        (unfinished / NAME).rename(archive.parent / NAME)
    except (OSError, ValueError, RuntimeError, BadZipFile, zlib.error) as error:
        raise UserError(f"{archive} cannot be unpacked ({format_error(error)}); download it again") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return find_root(archive.parent)


def pictures_in(folder: Path) -> list[str]:
    """Names of the pictures in a folder, sorted; none if there is no such folder."""
    return sorted(name for name in os.listdir(folder) if name.upper().endswith(".JPEG")) if folder.is_dir() else []


def names_of(wnids: Sequence[str], words: Path) -> list[str]:
    """For each WordNet number the first of its words; where two have the same one, with the number.

    Args:
        wnids: such as "n01443537".
        words: a line for each of many numbers: number, tab, words with commas between them.
    """
    lines = words.read_text(encoding="utf-8", errors="replace").splitlines() if words.is_file() else []
    known = dict(line.split("\t", 1) for line in lines if "\t" in line)
    first = [known.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    times = Counter(first)
    return [name if times[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(first, wnids, strict=True)]
