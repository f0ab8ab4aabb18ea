"""Scores a finished run.

python evaluate.py checkpoint/RUN                       its test images
python evaluate.py checkpoint/RUN --split val           its validation images
python evaluate.py checkpoint/RUN --data-dir elsewhere  where its images are now, or any folder of its classes, or table
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from config import load_config
from core.cli import check_at_least, parse, run_script
from core.errors import UserError
from core.run_folder import open_run
from Project import project

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Scores a finished run, and draws its page again."""

    run_dir: Positional[Path]
    """The run's folder."""
    split: Literal["val", "test"] = "test"
    """Which of its images."""
    data_dir: Path | None = None
    """Where its images are now, or other images in class folders (of a run on a table: a table)."""
    batch_size: int = 32
    """Images in a batch. The figures do not depend on it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu."""
    num_workers: int | None = None
    """Processes that read images. If not given: one a core, 8 at most."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_at_least(1, self, "batch_size")
        check_at_least(0, self, "num_workers")


def main(options: Options) -> None:
    """Run → network → images → scores.

    Raises:
        UserError: it is no run, or its images are not where they should be; nothing has been written then.
    """
    from poutyne import Model

    from core.files import read_json, write_json
    from core.processes import init_distributed, rank
    from core.task import load_task
    from data import get_transforms, load_data, make_loader
    from data.csv_dataset import read_labelled_table
    from data.imagefolder import read_labelled
    from evaluation import plots
    from evaluation.calibration import load_calibration
    from evaluation.report import render_report
    from evaluation.scoring import predict, score
    from losses import get_loss
    from models import load_network
    from utils import get_device

    run = open_run(options.run_dir)
    config = load_config(run)
    task = load_task(run)
    loss = get_loss(config.loss)
    device = get_device(options.device)
    init_distributed(device, options.batch_size)
    model = Model(load_network(run), None, None, device=device)

    part: str = options.split
    folder = options.data_dir
    if folder and not folder.exists():
        raise UserError(f"there is no folder {folder}")
    try:
        data = load_data(config, project, run, folder)
        dataset = data.val if part == "val" else data.test
    except UserError:
        root = folder if folder and folder.is_dir() else folder and folder.parent
        names = [name for names in read_json(run.split).values() for name in names]
        if not root or sum((root / name).is_file() for name in names) > len(names) / 2:
            raise  # the run's own images, but not all of them: the others would be mixed up with those of the training
        part = "folder"  # other images, or some of these
        table = task.multilabel or config.dataset == "csv"
        dataset = read_labelled_table(folder, task) if table else read_labelled(folder, task.classes)
    _, val_transform = get_transforms(config.image_size, resize=config.resize)
    loader = make_loader(
        dataset, val_transform, task.classes, batch_size=options.batch_size, num_workers=options.num_workers
    )

    predicted = predict(model, loader)
    if rank() > 0:
        return
    scores = score(task, *predicted, loss, load_calibration(run).temperature)
    write_json(run / f"evaluate-{part}.json", scores.named(part))
    plots.confusion(scores.confusion, task.classes).savefig(run / f"evaluate-{part}.png")
    page = run.report if part == "test" else run / f"evaluate-{part}.html"
    render_report(run, scores, dataset, part, page)
    logger.info("%s: %s; open %s", part, scores, page)


if __name__ == "__main__":
    run_script(main, lambda: parse(Options))
