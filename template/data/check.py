"""Looks at every picture before hours are spent on them: unreadable ones, doubles, leaks, classes that are missing.

python -m data.check                      the pictures that main.py would train on
python -m data.check --data-dir ~/flowers --json findings.json
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from torch.utils.data import ConcatDataset

from config import Config
from core.cli import STOPPED, check_at_least, check_file, parse, run_script
from core.errors import UserError
from core.files import write_json
from core.processes import local_main_first
from core.task import classes_of
from data import choose_dataset, data_folder, get_data
from data.duplicates import collect_image_stats, find_duplicates
from data.imagefolder import shorten
from data.splits import SPLITS, DatasetSplits, check_problems, get_file_names, get_labels
from Project import project

logger = logging.getLogger(__name__)

LOST = 0.35  # of an image's area is much: a little more than the third that one of 3:2 loses by the crop
AT_ONCE = 20_000  # new pictures that a training looks at before it starts; beyond that it takes minutes


@dataclass(frozen=True)
class Findings:
    """What a data set is like. Groups are lists of {"file", "split", "label"}.

    Attributes:
        counts: images of each class in each split.
        images_checked: how many pictures were looked at, of all; the rest is known for these alone.
        sizes: width and height of the smallest, the median and the largest one.
        cropped: how many images have sides so different that a square cut out of them leaves out over a third.
        formats: how many of each.
        unreadable: files that cannot be read, and `reasons` why.
        missing_classes: classes without a picture, by split.
        imbalance: images of the largest class in train over those of the smallest.
        duplicates: groups of the same picture: the same bytes, or re-encoded or resized.
        leaks: those of them that are in more than one split.
        label_conflicts: those of them with different labels.
        problems: what the data set itself complains of.
        mean, std: of the training pictures, for each channel, from 0 to 1; each picture counts the same.
    """

    counts: dict[str, dict[str, int]]
    images_checked: int
    sizes: dict[str, list[int]] = field(default_factory=dict)
    cropped: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    missing_classes: dict[str, list[str]] = field(default_factory=dict)
    imbalance: float = 1.0
    duplicates: list[list[dict]] = field(default_factory=list)
    leaks: list[list[dict]] = field(default_factory=list)
    label_conflicts: list[list[dict]] = field(default_factory=list)
    problems: Sequence[str] = ()
    mean: list[float] | None = None
    std: list[float] | None = None

    @property
    def crop_warning(self) -> str:
        """What to know of the crop, if more than a quarter of the images lose much by it; else empty."""
        if self.cropped <= self.images_checked / 4:
            return ""
        return (
            f"{self.cropped} of {self.images_checked} images lose more than a third of their area by the crop; if what "
            "tells the classes apart reaches their ends, try --resize pad or --resize squash"
        )


def check(config: Config, data: DatasetSplits, cache_dir: Path) -> DatasetSplits:
    """What a training does before it starts: refuses what cannot be trained on, and warns of what should not be.

    Args:
        config: strict refuses leaks and label conflicts too; normalize by the data needs every image, however many.
        data: the three parts.
        cache_dir: what is found is cached there, and a file that has not changed is not read again.

    Returns:
        The data, with its findings.

    Raises:
        UserError: the data has problems, or a picture cannot be read; names the first one.
    """
    check_problems(data)
    at_once = None if config.normalize == "data" else AT_ONCE
    with local_main_first():
        findings = look(data, cache_dir, at_once, config.num_workers)
    if findings.reasons:
        others = f" ({len(findings.reasons) - 1} more cannot be read)" if len(findings.reasons) > 1 else ""
        raise UserError(f"{findings.reasons[0]}{others}")
    for split, names in findings.missing_classes.items():
        purpose = {"train": "train with", "val": "validate", "test": "test"}[split]
        message = f"no picture to {purpose}: {shorten(names)}"
        if config.strict or split == "train":
            raise UserError(message)
        logger.warning("%s", message)
    if config.resize == "crop" and findings.crop_warning:
        logger.info("%s", findings.crop_warning)
    for key, groups in ("split", findings.leaks), ("label", findings.label_conflicts):
        if groups:
            different = {item[key]: item for item in groups[0]}
            two = " and ".join(f"{item['file']} ({value})" for value, item in list(different.items())[:2])
            message = f"found in more than one {key}: {len(groups)}, such as {two}; python -m data.check lists them"
            if config.strict:
                raise UserError(f"--strict: {message}")
            logger.warning("%s", message)
    return replace(data, findings=findings)


def look(data: DatasetSplits, cache_dir: Path, at_once: int | None = None, num_workers: int | None = None) -> Findings:
    """Looks at every picture of a data set, with a progress bar.

    Args:
        data: the three parts.
        cache_dir: see `check`.
        at_once: if there are more new pictures than this, only what is known already is told.
        num_workers: processes that read pictures.
    """
    parts = [getattr(data, split) for split in SPLITS]
    targets = [label for part in parts for label in get_labels(part)]
    splits = [split for split, part in zip(SPLITS, parts, strict=True) for _ in range(len(part))]
    files = [name for part in parts for name in get_file_names(part)]
    counts = {split: dict.fromkeys(data.classes, 0) for split in SPLITS}
    for split, label in zip(splits, targets, strict=True):
        for i in classes_of(label):
            counts[split][data.classes[i]] += 1
    missing = {split: [name for name, n in count.items() if not n] for split, count in counts.items()}
    train = [n for n in counts["train"].values() if n]

    looks = collect_image_stats(ConcatDataset(parts), cache_dir, at_once, num_workers)
    known = [i for i, one in enumerate(looks) if one is not None]
    good = [i for i in known if not looks[i].error]

    def item(i: int) -> dict[str, str]:
        return {"file": files[i], "split": splits[i], "label": data.task.describe(targets[i])}

    duplicates = [[item(good[i]) for i in group] for group in find_duplicates([looks[i] for i in good])]
    shapes = [(looks[i].width, looks[i].height) for i in good]
    areas = sorted(good, key=lambda i: looks[i].width * looks[i].height)
    where = {"smallest": 0, "median": len(areas) // 2, "largest": -1} if areas else {}
    sums = [(looks[i].mean, looks[i].square) for i in good if splits[i] == "train"]
    mean, square = np.mean(sums, axis=0) if sums else (None, None)
    return Findings(
        counts=counts,
        images_checked=len(known),
        sizes={name: [looks[areas[i]].width, looks[areas[i]].height] for name, i in where.items()},
        cropped=sum(1 - min(size) / max(size) > LOST for size in shapes),
        formats=dict(Counter(looks[i].format for i in good).most_common()),
        unreadable=[files[i] for i in known if looks[i].error],
        reasons=[looks[i].error for i in known if looks[i].error],
        missing_classes={split: names for split, names in missing.items() if names},
        imbalance=max(train) / min(train) if train else 1.0,
        duplicates=duplicates,
        leaks=[group for group in duplicates if len({one["split"] for one in group}) > 1],
        label_conflicts=[group for group in duplicates if len({one["label"] for one in group}) > 1],
        problems=list(data.problems),
        mean=None if mean is None else mean.round(4).tolist(),
        std=None if mean is None else np.sqrt(np.maximum(square - mean**2, 1e-8)).round(4).tolist(),
    )


def describe(findings: Findings, data: DatasetSplits) -> Iterator[str]:
    """The findings as lines of at most 80 columns, most of them."""
    total = sum(len(getattr(data, split)) for split in SPLITS)
    yield f"{data}"
    if findings.images_checked < total:
        yield f"looked at {findings.images_checked} of {total}"
    width = min(30, max(map(len, data.classes)))
    yield f"{'':{width}}" + "".join(f"{split:>8}" for split in SPLITS)
    for name in data.classes[:40]:
        yield f"{name[:width]:{width}}" + "".join(f"{findings.counts[split][name]:8}" for split in SPLITS)
    if len(data.classes) > 40:
        yield f"and {len(data.classes) - 40} classes more"
    yield f"largest class in train: {findings.imbalance:.1f} times the smallest"
    yield "sizes: " + ", ".join(f"{name} {w} × {h}" for name, (w, h) in findings.sizes.items())
    if findings.crop_warning:
        yield findings.crop_warning
    yield "formats: " + ", ".join(f"{name} {n}" for name, n in findings.formats.items())
    if findings.mean:
        yield f"mean {findings.mean}, std {findings.std}"
    yield from listed("problems", findings.problems)
    yield from listed("unreadable", findings.reasons)
    missing = [f"{name} in {split}" for split, names in findings.missing_classes.items() for name in names]
    yield from listed("no picture of", missing)
    rest = [group for group in findings.duplicates if group not in findings.leaks + findings.label_conflicts]
    for title, groups in (
        ("the same picture in more than one split", findings.leaks),
        ("the same picture under different labels", findings.label_conflicts),
        ("the same picture twice", rest),
    ):
        items = [[f"{item['file']} ({item['split']}, {item['label']})" for item in group] for group in groups]
        yield from listed(title, ("\n  = ".join(group) for group in items))


def listed(title: str, lines: Iterable[str], at_most: int = 10) -> Iterator[str]:
    """A title with its number of lines, and the first of them; nothing if there are none."""
    lines = list(lines)
    if lines:
        yield f"{title}: {len(lines)}"
        yield from (f"  {line}" for line in lines[:at_most])
    if len(lines) > at_most:
        yield f"  and {len(lines) - at_most} more; --json FILE writes them all"


@dataclass(frozen=True)
class Options:
    """Looks at every picture of a data set and says what is wrong with it."""

    dataset: str | None = None
    """As in main.py."""
    data_dir: Path | None = None
    """As in main.py."""
    split: tuple[float, float, float] = Config.split
    """As in main.py."""
    split_seed: int = 0
    """As in main.py."""
    json: Path | None = None
    """A file for all that was found."""
    strict: bool = False
    """Exit code 2 where something is unreadable, missing, in two splits or under two labels."""
    num_workers: int | None = None
    """Processes that read images. If not given: one a core, 8 at most."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_at_least(0, self, "num_workers", "split_seed")
        check_file("json", self.json)


def main(options: Options) -> None:
    """Data → findings → what a person should know of them.

    Raises:
        UserError: there is no such data set; or with `strict`, something is wrong with it.
    """
    config = Config(options.dataset, options.data_dir, options.split, options.split_seed)
    config = choose_dataset(config, project)
    data = get_data(config.dataset, data_folder(config, project), config.split, config.split_seed)
    findings = look(data, project.cache_dir, num_workers=options.num_workers)
    for line in describe(findings, data):
        print(line)
    if options.json:
        write_json(options.json, asdict(findings))
    wrong = ("problems", "unreadable", "missing_classes", "leaks", "label_conflicts")
    found = [name for name in wrong if getattr(findings, name)]
    if options.strict and found:
        raise UserError(f"--strict: {', '.join(found)}")


if __name__ == "__main__":
    run_script(main, lambda: parse(Options), STOPPED)
