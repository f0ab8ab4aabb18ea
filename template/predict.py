"""Classes and probabilities for new images.

python predict.py checkpoint/RUN photo.jpg more_photos/
python predict.py checkpoint/RUN photos/ --csv predictions.csv
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from config import check_at_least, check_file, parse
from runs import load_config, open_run
from utils import UserError, replacing, run_script

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Options:
    """Says what is on pictures, with the network of a finished run."""

    run_dir: Positional[Path]
    """The run's folder."""
    paths: Positional[tuple[Path, ...]]
    """Pictures, or folders that are searched for pictures, with all that is below them."""
    csv: Path | None = None
    """A file for the results: file,class,probability. Several classes of an image have a | between them."""
    batch_size: int = 32
    """Images that go through the network at a time."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_at_least(1, self, "batch_size")
        check_file("csv", self.csv)


def main(options: Options) -> None:
    """Run → network → images → classes.

    A picture that cannot be read is named and passed over; the exit code is 1 then.

    Raises:
        UserError: it is no run, a path does not exist, or there is no picture that can be read.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch
    from poutyne import Model

    from data import get_transforms
    from data.images import read_image
    from models import load_network
    from utils import get_device, read_json

    run = open_run(options.run_dir)
    classes = read_json(run.classes)
    files = find_images(options.paths)
    thresholds = read_json(run.thresholds) if run.thresholds.exists() else None
    model = Model(load_network(run), None, None, device=get_device(options.device))
    _, transform = get_transforms(load_config(run).image_size)

    def read(file: Path) -> torch.Tensor | UserError:
        try:
            return transform(read_image(file))
        except UserError as error:
            return error

    rows, broken = [], []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), options.batch_size):
            batch = files[start : start + options.batch_size]
            images = dict(zip(batch, pool.map(read, batch), strict=True))
            broken += [str(error) for error in images.values() if isinstance(error, UserError)]
            images = {file: image for file, image in images.items() if isinstance(image, torch.Tensor)}
            if not images:
                continue
            logits = model.predict_on_batch(torch.stack(list(images.values())))
            for file, row in zip(images, torch.from_numpy(logits), strict=True):
                rows.append((file, *name_classes(row, classes, thresholds)))
                print("  ".join(map(str, rows[-1])))
    if not rows:
        raise UserError(broken[0])
    if options.csv:
        write_csv(options.csv, rows)
    if broken:
        for message in broken:
            print(f"error: {message}", file=sys.stderr)
        print(f"{len(broken)} of {len(files)} images could not be read", file=sys.stderr)
        sys.exit(1)


def name_classes(
    logits: "torch.Tensor", classes: Sequence[str], thresholds: dict[str, float] | None
) -> tuple[str, str]:
    """What is on a picture, and how probable it is.

    Args:
        logits: (n_classes,) of float.
        classes: their names.
        thresholds: by class, where a picture can have several.

    Returns:
        The name of the most probable class and its probability; or the names of all whose probability reaches their
        threshold, the surest first, and their probabilities, with `|` between them.
    """
    if thresholds is None:
        p, i = logits.softmax(dim=0).max(dim=0)
        return classes[i], f"{p:.6f}"
    p = dict(zip(classes, logits.sigmoid().tolist(), strict=True))
    found = sorted((name for name in classes if p[name] >= thresholds[name]), key=lambda name: -p[name])
    return "|".join(found), "|".join(f"{p[name]:.6f}" for name in found)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The pictures among these paths and in folders among them, sorted within each.

    Raises:
        UserError: a path does not exist, or there is no picture at all.
    """
    from data.images import images_in

    files: dict[Path, None] = {}  # each one once
    for path in paths:
        if path.is_dir():
            files.update(dict.fromkeys(sorted(map(Path, images_in(path)))))
        elif path.exists():
            files[path] = None
        else:
            raise UserError(f"there is no file or folder {path}")
    if not files:
        raise UserError(f"there is no image in {', '.join(map(str, paths))}")
    return list(files)


def write_csv(path: Path, rows: Sequence[tuple[Path, str, str]]) -> None:
    """Writes file, class and probability of each picture."""
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", "probability"])
        writer.writerows(rows)


if __name__ == "__main__":
    run_script(main, lambda: parse(Options))
