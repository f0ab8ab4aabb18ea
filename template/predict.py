"""Predict the classes of new images.

python predict.py checkpoint/RUN photo.jpg more_photos/
python predict.py checkpoint/RUN photos/ --csv predictions.csv
python predict.py checkpoint/RUN "photos/*.jpg" --top 2 --json predictions.json
"""

import csv
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from core.cli import check_at_least, check_file, parse, run_script
from core.errors import UserError
from core.files import atomic_write, write_json
from core.progress import progress_bar

if TYPE_CHECKING:
    import torch

    from core.task import Task
    from utils import LoadedRun


@dataclass(frozen=True)
class Options:
    """Predict the classes of images with the network of a finished run."""

    run_dir: Positional[Path]
    """Folder of the run."""
    paths: Positional[tuple[Path, ...]]
    """Images, patterns such as "*.jpg", or folders, which are searched recursively."""
    top: int | None = None
    """The K most probable classes of each image, one per line (default: the predicted class, or unsure)."""
    csv: Path | None = None
    """CSV file to write: file,class,probability; several classes of an image are separated by |."""
    json: Path | None = None
    """JSON file to write: a list of {"file", "sure", "classes": [{"class", "probability"}]}."""
    batch_size: int = 32
    """Images per batch."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps or xpu."""
    num_workers: int | None = None
    """Processes that read images (default: one per core, at most 8; none for up to 64 images)."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "batch_size", "top")
        check_at_least(0, self, "num_workers")
        check_file("csv", self.csv)
        check_file("json", self.json)
        if not self.paths:
            raise UserError("no image was given; name files, patterns or folders after the folder of the run")
        if self.csv and self.json and self.csv.resolve() == self.json.resolve():
            raise UserError(f"--csv and --json are both {self.csv}; give two files")


def main(options: Options) -> None:
    """Print and write the predictions; images that cannot be read are listed at the end, with exit code 1."""
    from utils import load_run

    loaded = load_run(options.run_dir)
    calibration = loaded.calibration
    if options.top and options.top > len(loaded.classes):
        raise UserError(f"--top {options.top}: the run has {len(loaded.classes)} classes")
    files = find_images(options.paths)

    entries = []  # of the JSON file
    errors = []
    with atomic_write(options.csv or Path(os.devnull)) as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", "probability"])
        progress = progress_bar("predicting", predict_files(files, loaded, options), total=len(files))
        for path, p in progress:
            if isinstance(p, str):
                errors.append(p)
                continue
            classes = name_classes(p, loaded.task, options.top)
            sure = calibration.is_confident(p.max().item())
            entry = {"file": str(path), "sure": sure, "classes": classes}
            for row in to_rows(entry, separate=options.top is not None):
                writer.writerow(row)
                progress.write("  ".join(row))
            if options.json:
                entries.append(entry)
        if len(errors) == len(files):
            raise UserError(errors[0])
    if options.json:
        write_json(options.json, entries)
    if calibration.max_error is not None and calibration.confidence_threshold is None:
        print(f"warning: {calibration.guarantee}", file=sys.stderr)
    if errors:
        for message in errors:
            print(f"error: {message}", file=sys.stderr)
        print(f"{len(errors)} of {len(files)} images could not be read", file=sys.stderr)
        sys.exit(1)


def predict_files(files: Sequence[Path], loaded: "LoadedRun", options: Options) -> Iterator[tuple[Path, Any]]:
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
    loader = DataLoader(dataset, options.batch_size, num_workers=workers, collate_fn=list)
    for batch in loader:
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


def name_classes(p: "torch.Tensor", task: "Task", top: int | None) -> list[dict[str, Any]]:
    """Return the predicted or the `top` most probable classes of an image, from its probabilities, (n_classes,)."""
    from core.task import classes_of

    chosen = p.argsort(descending=True, stable=True).tolist()[:top]
    if not top:
        predicted = classes_of(task.decode(p).tolist())
        chosen = [i for i in chosen if i in predicted]
    return [{"class": task.classes[i], "probability": round(p[i].item(), 6)} for i in chosen]


def to_rows(entry: dict[str, Any], separate: bool) -> list[tuple[str, str, str]]:
    """Return the rows (file, class, probability) of an image: a single one, or a separate one for each class."""
    from core.task import SEPARATOR

    names = [found["class"] for found in entry["classes"]]
    probabilities = [f"{found['probability']:.6f}" for found in entry["classes"]]
    if separate:
        return [(entry["file"], name, p) for name, p in zip(names, probabilities, strict=True)]
    if not entry["sure"]:
        names = ["unsure"]
    return [(entry["file"], SEPARATOR.join(names), SEPARATOR.join(probabilities))]


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the image files that the paths, folders and patterns name, each once."""
    from data.image_io import images_in, is_image

    files: list[str | Path] = []
    for path in paths:
        if os.path.isdir(path):  # Path.is_dir raises an error where the name is too long
            files += sorted(images_in(path))
        elif os.path.lexists(path):
            files.append(path)
        elif found := [name for name in glob.glob(str(path), recursive=True) if is_image(name)]:
            files += sorted(found)
        else:
            raise UserError(f"there is no file or folder {path}")
    if not files:
        raise UserError(f"there is no image in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(map(Path, files)))


if __name__ == "__main__":
    run_script(main, lambda: parse(Options), log=sys.stderr)  # stdout is for the predictions
