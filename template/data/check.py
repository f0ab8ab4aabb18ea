"""Check of a data set before hours are spent on it: unreadable images, duplicates, leaks, missing classes.

python -m data.check                      the images that main.py would train on
python -m data.check --data-dir ~/flowers --json findings.json
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch.utils.data import ConcatDataset

from config import Config
from core.cli import STOPPED, check_file, parse, run_script
from core.errors import UserError
from core.files import write_json
from core.processes import local_main_first
from core.ranges import NonNegativeInt, Seed, check_ranges
from core.task import SEPARATOR
from data import choose_dataset, data_folder, get_data
from data.duplicates import collect_image_stats, find_duplicates
from data.imagefolder import shorten
from data.splits import SPLITS, DatasetSplits, check_problems, get_file_names, get_labels
from Project import project

logger = logging.getLogger(__name__)

MAX_CROPPED = 0.35  # share of an image's area; cropping 3:2 to a square removes a third
MAX_NEW = 20_000  # images that main.py checks before it trains: minutes
MAX_LINES = 10  # of each kind of finding

Group = list[dict[str, str]]  # duplicates: file, split and label of each


@dataclass(frozen=True)
class Findings:
    """Findings of the check, as written to check.json."""

    counts: dict[str, dict[str, int]]  # number of images, by split and class
    images_checked: int  # all findings below are about these
    sizes: dict[str, list[int]]  # width and height of the smallest, the median and the largest image
    cropped: int  # number of images that lose more than a third of their area by the crop to a square
    unreadable: list[str]  # files
    reasons: list[str]  # why they cannot be read
    missing_classes: dict[str, list[str]]  # classes without an image, by split
    imbalance: float  # size of the largest class in train, divided by that of the smallest
    duplicates: list[Group]  # identical, re-encoded or resized images
    leaks: list[Group]  # duplicates in more than one split
    label_conflicts: list[Group]  # duplicates with more than one label
    problems: list[str]  # of the data set itself
    # of the training images, for each channel, from 0 to 1; all images weigh the same
    mean: list[float] | None
    std: list[float] | None

    @property
    def faults(self) -> dict[str, list[str]]:
        """What `--strict` refuses: lines by kind."""
        return {
            "problems": self.problems,
            "unreadable images": self.reasons,
            "missing classes": [
                f"no image in {split}: {shorten(c)}" for split, c in self.missing_classes.items()
            ],
            "duplicates with more than one split": list(map(describe_group, self.leaks)),
            "duplicates with more than one label": list(map(describe_group, self.label_conflicts)),
        }

    @property
    def crop_warning(self) -> str:
        """Warning if more than a quarter of the images lose much by the crop, else empty."""
        if self.cropped <= self.images_checked / 4:
            return ""
        lost = (
            f"{self.cropped} of {self.images_checked} images lose more than a third of their area by the crop"
        )
        return f"{lost}; if the edges matter for the classes, try --resize pad or --resize squash"


def check(config: Config, data: DatasetSplits, cache_dir: Path) -> DatasetSplits:
    """Check the images before training, and return the data with its findings.

    Raises:
        UserError: the data set has problems, an image cannot be read, train lacks a class, or `strict` and any fault.
    """
    check_problems(data)
    max_new = None if config.normalize == "data" else MAX_NEW
    with local_main_first():
        findings = inspect_images(data, cache_dir, max_new, config.num_workers)
    data = replace(data, problems=findings.reasons, findings=findings)
    check_problems(data)
    if "train" in findings.missing_classes:
        raise UserError(f"no image in train: {shorten(findings.missing_classes['train'])}")
    for kind, lines in findings.faults.items():
        if not lines:
            continue
        message = f"{kind}: {len(lines)}, for example {lines[0]}; python -m data.check lists them"
        if config.strict:
            raise UserError(f"--strict: {message}")
        logger.warning("%s", message)
    if config.resize == "crop" and findings.crop_warning:
        logger.info("%s", findings.crop_warning)
    return data


def inspect_images(
    data: DatasetSplits, cache_dir: Path, max_new: int | None = None, num_workers: int | None = None
) -> Findings:
    """Inspect all images of a data set; for the arguments see `collect_image_stats`."""
    dataset = ConcatDataset([data.train, data.val, data.test])
    images = pd.DataFrame({"file": get_file_names(dataset)})
    images["split"] = np.repeat(SPLITS, [len(part) for part in dataset.datasets])
    images["class"] = [data.task.names(label) for label in get_labels(dataset)]
    images["label"] = images["class"].str.join(SEPARATOR)

    classes = images.explode("class")
    counts = pd.crosstab(classes["class"], classes["split"])
    counts = counts.reindex(index=data.classes, columns=SPLITS, fill_value=0)
    missing = {split: counts.index[counts[split] == 0].tolist() for split in SPLITS}
    in_train = counts["train"][counts["train"] > 0]

    stats, errors = collect_image_stats(dataset, cache_dir, max_new, num_workers)
    unreadable = sorted(errors)
    readable = np.flatnonzero(stats["width"])
    stats = stats[readable]
    sizes = np.stack([stats["width"], stats["height"]], axis=1)  # (N, 2)
    lost = 1 - sizes.min(axis=1) / sizes.max(axis=1)  # share of the area, by the crop to a square
    records = images[["file", "split", "label"]].iloc[readable]
    mean, std = channel_statistics(stats[records["split"] == "train"])
    duplicates = [records.iloc[group].to_dict("records") for group in find_duplicates(stats)]
    return Findings(
        counts=counts.to_dict(),
        images_checked=len(readable) + len(errors),
        sizes=summarize_sizes(sizes),
        cropped=int((lost > MAX_CROPPED).sum()),
        unreadable=images["file"][unreadable].tolist(),
        reasons=[errors[i] for i in unreadable],
        missing_classes={split: names for split, names in missing.items() if names},
        imbalance=float(in_train.max() / in_train.min()) if len(in_train) else 1.0,
        duplicates=duplicates,
        leaks=[group for group in duplicates if differ(group, "split")],
        label_conflicts=[group for group in duplicates if differ(group, "label")],
        problems=list(data.problems),
        mean=mean,
        std=std,
    )


def differ(group: Group, key: str) -> bool:
    """Return whether the images of a group have different splits or labels."""
    return len({item[key] for item in group}) > 1


def summarize_sizes(sizes: np.ndarray) -> dict[str, list[int]]:
    """Return width and height of the smallest, the median and the largest image."""
    if not len(sizes):
        return {}
    by_area = sorted(sizes.tolist(), key=math.prod)
    return {"smallest": by_area[0], "median": by_area[len(by_area) // 2], "largest": by_area[-1]}


def channel_statistics(stats: np.ndarray) -> tuple[list[float] | None, list[float] | None]:
    """Return the mean and the standard deviation of each channel, from 0 to 1."""
    if not len(stats):
        return None, None
    mean = stats["mean"].mean(axis=0) / 255
    mean_square = (stats["rms"] ** 2).mean(axis=0) / 255**2
    std = np.sqrt((mean_square - mean**2).clip(min=1e-8))
    return mean.round(4).tolist(), std.round(4).tolist()


def describe(findings: Findings, data: DatasetSplits) -> Iterator[str]:
    """Yield the findings as lines of text."""
    yield str(data)
    yield pd.DataFrame(findings.counts).to_string(max_rows=40)
    yield f"largest class in train: {findings.imbalance:.1f} times the smallest"
    yield f"images checked: {findings.images_checked}"
    for name, (width, height) in findings.sizes.items():
        yield f"{name} image: {width} × {height}"
    yield f"mean {findings.mean}, std {findings.std}"
    yield f"groups of duplicates: {len(findings.duplicates)}"
    yield findings.crop_warning or "few images lose much by the crop"
    for kind, lines in findings.faults.items():
        yield f"{kind}: {len(lines)}"
        for line in lines[:MAX_LINES]:
            yield f"  {line}"
    yield f"at most {MAX_LINES} of each are listed; to write all: --json FILE"


def describe_group(group: Group) -> str:
    """Return the first few images of a group in one line."""
    return shorten([f"{item['file']} ({item['split']}, {item['label']})" for item in group])


@dataclass(frozen=True)
class Options:
    """Check all images of a data set."""

    dataset: str | None = None
    """As in main.py."""
    data_dir: Path | None = None
    """As in main.py."""
    split: tuple[float, float, float] = Config.split
    """As in main.py."""
    split_seed: Seed = 0
    """As in main.py."""
    json: Path | None = None
    """Write all findings to this file."""
    strict: bool = False
    """Exit with code 2 if an image is unreadable, a class is missing, or duplicates differ in split or label."""
    num_workers: NonNegativeInt | None = None
    """Number of processes that read images (default: number of cores, 8 at most)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_file("json", self.json)


def main(options: Options) -> None:
    """Check a data set and print the findings."""
    config = Config(options.dataset, options.data_dir, options.split, options.split_seed)
    config = choose_dataset(config, project)
    data = get_data(config.dataset, data_folder(config, project), config.split, config.split_seed)
    findings = inspect_images(data, project.cache_dir, num_workers=options.num_workers)
    print(*describe(findings, data), sep="\n")
    if options.json:
        write_json(options.json, asdict(findings))
    found = [kind for kind, lines in findings.faults.items() if lines]
    if options.strict and found:
        raise UserError(f"--strict: {', '.join(found)}")


if __name__ == "__main__":
    run_script(main, lambda: parse(Options), STOPPED)
