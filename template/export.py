"""A finished run as one file that other programs can use, checked against the original.

python export.py checkpoint/RUN                 model.onnx, for onnxruntime in any language
python export.py checkpoint/RUN --format pt2    model.pt2, for torch.export.load
"""

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from config import Config, load_config
from core.cli import parse, run_script
from core.errors import RunError, UserError
from core.rng import isolated_rng
from core.run_folder import open_run
from Project import Run, project

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 1e-4  # of a probability, between the original and the export


@dataclass(frozen=True)
class Options:
    """Writes a run as model.onnx or model.pt2, with labels.json beside it."""

    run_dir: Positional[Path]
    """The run's folder."""
    format: Literal["onnx", "pt2"] = "onnx"
    """onnx for onnxruntime, pt2 for torch.export."""
    data_dir: Path | None = None
    """Where the run's images are now; some of them are used for the check."""


def main(options: Options) -> None:
    """Run → network → file → the same pictures through both.

    Raises:
        UserError: it is no run, or a package is missing; nothing has been written then.
        RunError: the export computes something else.
    """
    import torch

    from core.files import write_json
    from core.task import load_task
    from data.transformation import short_side
    from deployment.exported import FORMATS, Probabilities
    from evaluation.calibration import load_calibration
    from models import load_network

    run = open_run(options.run_dir)
    config, calibration = load_config(run), load_calibration(run)
    task = load_task(run)
    network = Probabilities(load_network(run), task, calibration.temperature).eval()
    pictures = sample(run, config, options.data_dir)

    path = run / f"model.{options.format}"
    unfinished = run / f"unfinished.{options.format}"
    write, read = FORMATS[options.format]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch warns of changes inside of itself
            write(network, pictures[:2], unfinished)
            compute = read(unfinished)
            tried = (pictures[:1], pictures)  # the number of pictures is free
            difference = max((compute(batch) - network(batch)).abs().max().item() for batch in tried)
        logger.info("largest difference over %d pictures: %.1e", len(pictures), difference)
        if not difference <= LARGEST_DIFFERENCE:
            raise RunError(f"the export differs by {difference:.1e}; at most {LARGEST_DIFFERENCE} is allowed")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    labels = {"classes": task.classes, "image_size": config.image_size, "resize": config.resize}
    if config.resize == "crop":
        labels["short_side"] = short_side(config.image_size)
    if task.multilabel:
        labels["thresholds"] = task.thresholds
    else:
        labels["confidence_threshold"] = calibration.threshold or None
    write_json(run / "labels.json", labels)
    logger.info("%s and labels.json are in %s", path.name, run.folder)


def sample(run: Run, config: Config, data_dir: Path | None, n: int = 16) -> "torch.Tensor":
    """Real pictures to try an export on: of the validation set; where it is elsewhere, pieces of val_batch.png.

    Args:
        run: of which the network is.
        config: of the run.
        data_dir: where its images are now.
        n: how many.

    Returns:
        (n, 3, image_size, image_size) of uint8.
    """
    import torch
    from torchvision.transforms import v2

    from data import get_transforms, load_data
    from data.image_io import read_image

    _, transform = get_transforms(config.image_size, resize=config.resize)
    try:
        val = load_data(config, project, run, data_dir).val
        chosen = [val[i * len(val) // n][0] for i in range(n)]
    except UserError as error:
        if data_dir:
            raise
        logger.info("the run's images are not there (%s); checked on val_batch.png", error)
        sheet = read_image(run / "val_batch.png")
        with isolated_rng(0):
            chosen = [v2.RandomResizedCrop(config.image_size, (0.02, 0.1))(sheet) for _ in range(n)]
    return torch.stack([transform(picture) for picture in chosen])


if __name__ == "__main__":
    run_script(main, lambda: parse(Options))
