"""Score a finished run.

python evaluate.py checkpoint/RUN                   its test images
python evaluate.py checkpoint/RUN --split val       its validation images
python evaluate.py checkpoint/RUN --data-dir DIR    the same images in another folder, or other images of its classes
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from core.cli import parse, run_script
from core.environment import rank
from core.errors import UserError
from core.files import read_json, write_json
from core.ranges import NonNegativeInt, PositiveInt, check_ranges
from Project import project

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from utils import LoadedRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Score a finished run and write its report again."""

    run_dir: Positional[Path]
    """Folder of the run."""
    split: Literal["val", "test"] = "test"
    """Split to score."""
    data_dir: Path | None = None
    """Where the run's images are now; or other images in class folders, or in a table if the run's are."""
    batch_size: PositiveInt = 32
    """Images per batch; the scores do not depend on it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps or xpu."""
    num_workers: NonNegativeInt | None = None
    """Processes that read images (default: one per core, at most 8)."""

    def __post_init__(self) -> None:
        check_ranges(self)


def main(options: Options) -> None:
    """Score the images of a run; write the metrics, the confusion matrix and the report."""
    from poutyne import Model

    from core.processes import init_distributed
    from data import make_loader
    from evaluation import plots
    from evaluation.report import render_report
    from evaluation.scoring import predict, score
    from losses import get_loss
    from utils import get_device, load_run

    loaded = load_run(options.run_dir)
    run = loaded.run
    device = get_device(options.device)
    init_distributed(device, options.batch_size)
    name, dataset = load_dataset(loaded, options)
    loader = make_loader(
        dataset,
        loaded.transform,
        loaded.classes,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
    )
    loss = get_loss(loaded.config.loss)
    model = Model(loaded.network, None, None, device=device)
    logits, labels = predict(model, loader)
    if rank() > 0:
        return
    scores = score(loaded.task, logits, labels, loss, loaded.calibration.temperature)
    write_json(run / f"evaluate-{name}.json", scores.named(name))
    plots.confusion(scores.confusion, loaded.classes).savefig(run / f"evaluate-{name}.png")
    logger.info("%s: %s", name, scores)
    render_report(run, scores, dataset, name)


def load_dataset(loaded: "LoadedRun", options: Options) -> "tuple[str, Dataset]":
    """Return the name of the split and its images; "folder" for other images than those of the run."""
    from data import load_data
    from data.imagefolder import read_labelled

    data_dir = options.data_dir
    if data_dir and not data_dir.exists():
        raise UserError(f"there is no folder {data_dir}; give an existing one, or leave out --data-dir")
    try:
        data = load_data(loaded.config, project, loaded.run, data_dir)
        return options.split, data.val if options.split == "val" else data.test
    except UserError:
        if not data_dir:
            raise
        folder = data_dir if data_dir.is_dir() else data_dir.parent  # of a table
        split = read_json(loaded.run.split)
        files = [*split["train"], *split["val"], *split["test"]]
        found = [file for file in files if (folder / file).is_file()]
        if len(found) > len(files) / 2:
            raise  # an incomplete copy of the run's images: those of the training would be scored too
    if loaded.task.multilabel or loaded.config.dataset == "csv":
        from data.csv_dataset import read_labelled_table  # an optional file

        return "folder", read_labelled_table(data_dir, loaded.task)
    return "folder", read_labelled(data_dir, loaded.classes)


if __name__ == "__main__":
    run_script(main, lambda: parse(Options))
