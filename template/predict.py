"""Classes and probabilities for new images.

python predict.py checkpoint/RUN photo.jpg more_photos/
python predict.py checkpoint/RUN photos/ --csv predictions.csv
python predict.py checkpoint/RUN "photos/*.jpg" --top 2 --json predictions.json
"""

import csv
import glob
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tyro.conf import Positional

from config import load_config
from core.cli import check_at_least, check_file, parse, run_script
from core.errors import UserError
from core.files import atomic_write
from core.progress import progress_bar
from core.run_folder import open_run

if TYPE_CHECKING:
    import torch

    from core.task import Task
    from evaluation.calibration import Calibration

UNSURE = "unsure"


@dataclass(frozen=True)
class Options:
    """Says what is on pictures, with the network of a finished run, or unsure."""

    run_dir: Positional[Path]
    """The run's folder."""
    paths: Positional[tuple[Path, ...]]
    """Pictures, patterns such as "*.jpg", or folders that are searched for pictures, with all that is below them."""
    top: int | None = None
    """The K most probable classes of each image, one a line, however sure."""
    csv: Path | None = None
    """A file for the results: file,class,probability. Several classes of an image have a | between them."""
    json: Path | None = None
    """The same as a list of {"file", "sure", "classes": [{"class", "probability"}]}."""
    batch_size: int = 32
    """Images that go through the network at a time."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu."""
    num_workers: int | None = None
    """Processes that read images. If not given: one a core, 8 at most; none for a few images."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_at_least(1, self, "batch_size", "top")
        check_at_least(0, self, "num_workers")
        check_file("csv", self.csv)
        check_file("json", self.json)
        if not self.paths:
            raise UserError("no picture was given; name files, patterns or folders behind the run's folder")
        if self.csv and self.json and self.csv.resolve() == self.json.resolve():
            raise UserError(f"--csv and --json are both {self.csv}; give two files")


def main(options: Options) -> None:
    """Run → network → images → classes. However many images there are, memory holds a few batches of them.

    A picture that cannot be read is named at the end and passed over; the exit code is 1 then.

    Raises:
        UserError: it is no run, a path does not exist, or there is no picture that can be read.
    """
    import torch
    from poutyne import Model
    from torch.utils.data import DataLoader

    from core.task import load_task
    from data import get_transforms
    from data.image_dataset import UnlabelledImages
    from data.loaders import default_workers
    from evaluation.calibration import load_calibration
    from models import load_network
    from utils import get_device

    run = open_run(options.run_dir)
    config = load_config(run)
    task, calibration = load_task(run), load_calibration(run)
    if options.top and options.top > len(task.classes):
        raise UserError(f"--top {options.top}: the run has {len(task.classes)} classes")
    files = find_images(options.paths)
    model = Model(load_network(run), None, None, device=get_device(options.device))
    _, transform = get_transforms(config.image_size, resize=config.resize)
    workers = default_workers(options.num_workers) if len(files) > 64 or options.num_workers else 0
    loader = DataLoader(UnlabelledImages(files, transform), options.batch_size, num_workers=workers, collate_fn=list)

    broken: list[str] = []
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar("predicting", total=len(files)))

        def show(file: Path, answer: Answer) -> None:
            progress.write("  ".join([str(file), *(f"{name}  {p}" for name, p in lines_of(answer))]))

        writers: list[Callable[[Path, Answer], None]] = [show]
        if options.csv:
            writers.append(csv_writer(stack.enter_context(atomic_write(options.csv))))
        if options.json:
            writers.append(json_writer(stack, stack.enter_context(atomic_write(options.json))))
        for batch in loader:
            good = [(files[i], image) for i, image in batch if isinstance(image, torch.Tensor)]
            broken += [image for _, image in batch if isinstance(image, str)]
            if good:
                logits = torch.from_numpy(model.predict_on_batch(torch.stack([image for _, image in good])))
                for (file, _), row in zip(good, logits, strict=True):
                    answer = name_classes(row, task, calibration, options.top)
                    for write in writers:
                        write(file, answer)
            progress.update(len(batch))
        if len(broken) == len(files):
            raise UserError(broken[0])
    if calibration.max_error is not None and calibration.threshold is None:
        print(f"warning: {calibration.promise}", file=sys.stderr)
    if broken:
        for message in broken:
            print(f"error: {message}", file=sys.stderr)
        print(f"{len(broken)} of {len(files)} images could not be read", file=sys.stderr)
        sys.exit(1)


@dataclass(frozen=True)
class Answer:
    """What is on a picture.

    Attributes:
        classes: names and probabilities, the most probable first; where an image can have several, those it has.
        sure: whether the first may be given as the answer.
        top: whether several lines are wanted.
    """

    classes: list[tuple[str, float]]
    sure: bool = True
    top: bool = False


def name_classes(logits: "torch.Tensor", task: "Task", calibration: "Calibration", top: int | None = None) -> Answer:
    """Return the classes of an image, and how probable they are.

    Args:
        logits: (n_classes,) of float.
        task: of the run.
        calibration: how sure is sure.
        top: how many classes are wanted, however probable; by default the first, or all that are there.
    """
    p = task.activate(logits, calibration.temperature)
    ranked = sorted(zip(task.classes, p.tolist(), strict=True), key=lambda pair: -pair[1])
    sure = calibration.is_confident(ranked[0][1])
    if top:
        return Answer(ranked[:top], sure, top=True)
    names = task.names(task.decode(p).tolist())
    return Answer([(name, share) for name, share in ranked if name in names], sure)


def lines_of(answer: Answer) -> list[tuple[str, str]]:
    """Class and probability as they stand in the table: one line, or with `--top` several."""
    if answer.top:
        return [(name, f"{p:.6f}") for name, p in answer.classes]
    if not answer.sure:
        return [(UNSURE, f"{answer.classes[0][1]:.6f}")]
    from core.task import SEPARATOR

    names = [name for name, _ in answer.classes]
    probabilities = [f"{p:.6f}" for _, p in answer.classes]
    return [(SEPARATOR.join(names), SEPARATOR.join(probabilities))]


def csv_writer(file: IO[str]) -> Callable[[Path, Answer], None]:
    """Begins a table; returns what adds a picture to it."""
    writer = csv.writer(file)
    writer.writerow(["file", "class", "probability"])

    def write(path: Path, answer: Answer) -> None:
        writer.writerows((path, *line) for line in lines_of(answer))

    return write


def json_writer(stack: ExitStack, file: IO[str]) -> Callable[[Path, Answer], None]:
    """Begins a JSON list; returns what adds a picture to it. It is closed when the stack is."""
    separators = chain([""], repeat(",\n"))
    file.write("[\n")
    stack.callback(lambda: file.write("\n]\n"))

    def write(path: Path, answer: Answer) -> None:
        found = [{"class": name, "probability": round(p, 6)} for name, p in answer.classes]
        entry: dict[str, Any] = {"file": str(path), "sure": answer.sure, "classes": found}
        file.write(next(separators) + json.dumps(entry, ensure_ascii=False))

    return write


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The pictures among these paths and in folders among them, sorted within each.

    Raises:
        UserError: a path does not exist, or there is no picture at all.
    """
    from data.image_io import images_in, is_image

    files: dict[Path, None] = {}  # each one once
    for path in paths:
        if os.path.isdir(path):  # unlike pathlib's, it takes a name that is too long for one that is not there
            files.update(dict.fromkeys(sorted(map(Path, images_in(path)))))
        elif os.path.lexists(path):
            files[path] = None
        elif found := sorted(name for name in glob.glob(str(path), recursive=True) if is_image(name)):
            files.update(dict.fromkeys(map(Path, found)))
        else:
            raise UserError(f"there is no file or folder {path}")
    if not files:
        raise UserError(f"there is no image in {', '.join(map(str, paths))}")
    return list(files)


if __name__ == "__main__":
    run_script(main, lambda: parse(Options), log=sys.stderr)  # stdout is for the predictions
