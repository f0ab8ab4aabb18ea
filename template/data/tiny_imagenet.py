"""Tiny ImageNet as published, a zip file or unpacked."""

import tempfile
import zlib
from pathlib import Path
from zipfile import BadZipFile

from torchvision.datasets.utils import extract_archive

from core.errors import UserError, format_error
from data.image_dataset import ImageDataset
from data.imagefolder import class_folders
from data.splits import DatasetSplits

NAME = "tiny-imagenet-200"
URL = f"http://cs231n.stanford.edu/{NAME}.zip"


def tiny_imagenet(data_dir: Path) -> DatasetSplits:
    """Read Tiny ImageNet from its folder, or one that holds it or its zip file, which is then unpacked.

    Its test set has no labels, so val is the test set here.
    """
    root = find_root(data_dir)
    wnids = class_folders(root / "train")
    words = read_pairs(root / "words.txt")
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    classes = []
    for name, wnid in zip(names, wnids, strict=True):
        classes.append(name if names.count(name) == 1 else f"{name} ({wnid})")

    files = sorted(path.relative_to(root).as_posix() for path in root.glob("train/*/images/*.JPEG"))
    train = ImageDataset(root, files, [wnids.index(file.split("/")[1]) for file in files], classes)

    annotations = root / "val" / "val_annotations.txt"
    wnid_of = read_pairs(annotations)
    images = {path.name for path in root.glob("val/images/*.JPEG")}
    files, targets, problems = [], [], []
    for name in sorted({*images, *wnid_of}):
        if name not in wnid_of:
            problems.append(f"{annotations} does not list {name}")
        elif wnid_of[name] not in wnids:
            problems.append(f"{annotations}: {name} has a class that train lacks")
        elif name not in images:
            problems.append(f"{annotations}: there is no image {name}")
        else:
            files.append(f"val/images/{name}")
            targets.append(wnids.index(wnid_of[name]))
    test = ImageDataset(root, files, targets, classes)
    return DatasetSplits(train, None, test, classes, image_size=64, augmentation="small", problems=problems)


def find_root(data_dir: Path) -> Path:
    """Return the published folder; unpack the zip file if there is no folder."""
    for root in (data_dir, data_dir / NAME):
        if all((root / name).exists() for name in ("train", "val/val_annotations.txt", "words.txt")):
            return root
    archive = data_dir if data_dir.suffix == ".zip" else data_dir / f"{NAME}.zip"
    if not archive.is_file():
        raise UserError(f"there is no Tiny ImageNet in {data_dir}; download {URL} and put it there")
    try:
        with tempfile.TemporaryDirectory(prefix=NAME, dir=archive.parent) as unfinished:
            extract_archive(str(archive), unfinished)
            Path(unfinished, NAME).rename(archive.parent / NAME)
    except (OSError, ValueError, RuntimeError, BadZipFile, zlib.error) as error:
        raise UserError(f"{archive} cannot be unpacked ({format_error(error)}); download it again") from error
    return find_root(archive.parent)


def read_pairs(path: Path) -> dict[str, str]:
    """Return the first two columns of a file with tabs between them; lines without a tab are skipped."""
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = [line.split("\t") for line in text.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) > 1}
