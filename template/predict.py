"""Predict the classes of new images.

python predict.py checkpoint/RUN photo.jpg more_photos/
python predict.py checkpoint/RUN photos/ --csv predictions.csv
python predict.py checkpoint/RUN "photos/*.jpg" --top 2
"""

import csv
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from core.cli import check_file, parse, run_script
from core.errors import UserError
from core.files import atomic_write
from core.progress import progress_bar
from core.ranges import NonNegativeInt, PositiveInt, check_ranges

if TYPE_CHECKING:
    import torch

    from utils import LoadedRun


@dataclass(frozen=True)
class Options:
    """Predict the classes of images with the network of a finished run."""

    run_dir: Positional[Path]
    """Folder of the run."""
    paths: Positional[tuple[Path, ...]]
    """Images, patterns such as "*.jpg", or folders, which are searched recursively."""
    top: PositiveInt | None = None
    """The K most probable classes of each image, one per line (default: the predicted class, or unsure)."""
    csv: Path | None = None
    """CSV file to write: file,class,probability; several classes of an image are separated by |."""
    batch_size: PositiveInt = 32
    """Images per batch."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps or xpu."""
    num_workers: NonNegativeInt | None = None
    """Processes that read images (default: one per core, at most 8; none for up to 64 images)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        check_file("csv", self.csv)
        if not self.paths:
            raise UserError("no image was given; name files, patterns or folders after the folder of the run")


def main(options: Options) -> None:
    """Print and write the predictions; images that cannot be read are listed at the end, with exit code 1."""
    from utils import load_run

    loaded = load_run(options.run_dir)
    if options.top and options.top > len(loaded.classes):
        raise UserError(f"--top {options.top}: the run has {len(loaded.classes)} classes")
    files = find_images(options.paths)
    errors = []
    with atomic_write(options.csv or Path(os.devnull)) as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", "probability"])
        progress = progress_bar("predicting", predict_files(files, loaded, options), total=len(files))
        for path, result in progress:
            if isinstance(result, str):
                errors.append(result)
                continue
            for row in to_rows(path, result, loaded, options.top):
                writer.writerow(row)
                progress.write("  ".join(row))
        if len(errors) == len(files):
            raise UserError(errors[0])
    calibration = loaded.calibration
    if calibration.max_error is not None and calibration.confidence_threshold is None:
        print(f"warning: {calibration.guarantee}", file=sys.stderr)
    for message in errors:
        print(f"error: {message}", file=sys.stderr)
    if errors:
        print(f"{len(errors)} of {len(files)} images could not be read", file=sys.stderr)
        sys.exit(1)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the image files that the paths, folders and patterns name, each once."""
    from data.image_io import images_in, is_image

    files: list[str | Path] = []
    for path in paths:
        if os.path.isdir(path):  # Path.is_dir raises an error where the name is too long
            files += sorted(images_in(path))
        elif os.path.lexists(path):
            files.append(path)
        elif found := sorted(filter(is_image, glob.glob(str(path), recursive=True))):
            files += found
        else:
            raise UserError(f"there is no file or folder {path}")
    if not files:
        raise UserError(f"there is no image in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(map(Path, files)))


def predict_files(
    files: Sequence[Path], loaded: "LoadedRun", options: Options
) -> Iterator[tuple[Path, "torch.Tensor | str"]]:
    """Yield each file with its probabilities, (n_classes,), or with a message that says why it cannot be read."""
    import torch
    from poutyne import Model
    from torch.utils.data import DataLoader

    from data.image_dataset import UnlabelledImages
    from data.loaders import default_workers
    from utils import get_device

    model = Model(loaded.network, None, None, device=get_device(options.device))
    workers = default_workers(options.num_workers)
    if options.num_workers is None and len(files) <= 64:
        workers = 0  # starting processes would take longer than reading the images
    dataset = UnlabelledImages(files, loaded.transform)
    for batch in DataLoader(dataset, options.batch_size, num_workers=workers, collate_fn=list):
        paths = []
        images = []
        for i, image in batch:
            if isinstance(image, str):
                yield files[i], image
            else:
                paths.append(files[i])
                images.append(image)
        if images:
            logits = torch.from_numpy(model.predict_on_batch(torch.stack(images)))
            probabilities = loaded.task.activate(logits, loaded.calibration.temperature)
            yield from zip(paths, probabilities, strict=True)


def to_rows(
    path: Path, p: "torch.Tensor", loaded: "LoadedRun", top: int | None
) -> list[tuple[str, str, str]]:
    """Return the rows (file, class, probability) of an image, one or `top`, for its probabilities (n_classes,)."""
    from core.task import SEPARATOR, classes_of

    order = p.argsort(descending=True, stable=True).tolist()
    if top:
        return [(str(path), loaded.classes[i], f"{p[i]:.6f}") for i in order[:top]]
    predicted = classes_of(loaded.task.decode(p).tolist())
    predicted.sort(key=order.index)
    names = [loaded.classes[i] for i in predicted]
    if not loaded.calibration.is_confident(p.max().item()):
        names = ["unsure"]
    probabilities = [f"{p[i]:.6f}" for i in predicted]
    return [(str(path), SEPARATOR.join(names), SEPARATOR.join(probabilities))]


if __name__ == "__main__":
    run_script(main, lambda: parse(Options), log=sys.stderr)  # stdout is for the predictions
