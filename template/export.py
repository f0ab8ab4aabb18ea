"""Export a finished run as one file for other programs, and check that it computes the same.

python export.py checkpoint/RUN                 model.onnx, for onnxruntime in any language
python export.py checkpoint/RUN --format pt2    model.pt2, for torch.export.load
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from core.cli import parse, run_script
from core.errors import RunError, UserError
from core.files import atomic_write, write_json
from core.rng import isolated_rng
from Project import Run

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of a probability


@dataclass(frozen=True)
class Options:
    """Export a finished run as model.onnx or model.pt2, with labels.json."""

    run_dir: Positional[Path]
    """Folder of the run."""
    format: Literal["onnx", "pt2"] = "onnx"
    """onnx for onnxruntime, pt2 for torch.export."""


def main(options: Options) -> None:
    """Export the network, compare the export with it on the same images, then write model and labels.json."""
    import torch

    from data.transformation import short_side
    from deployment.exported import FORMATS, Probabilities
    from utils import load_run

    loaded = load_run(options.run_dir)
    run, config, task, calibration = loaded.run, loaded.config, loaded.task, loaded.calibration
    network = Probabilities(loaded.network, task, calibration.temperature).eval()
    images = sample_images(run, config.image_size)

    to_file, from_file = FORMATS[options.format]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns of changes inside of itself
        try:
            content = to_file(network, images[:2])
            exported = from_file(content)
        except ImportError as error:
            raise UserError(f"{error.name} is not installed; pip install -r requirements.txt") from error
        computed = torch.cat([exported(images[:1]), exported(images[1:])])  # the batch size is free
        difference = (computed - network(images)).abs().max().item()
    logger.info("largest difference over %d images: %.1e", len(images), difference)
    if not difference <= TOLERANCE:  # nan is refused too
        raise RunError(f"the export differs by {difference:.1e}; at most {TOLERANCE} is allowed")
    path = run / f"model.{options.format}"
    with atomic_write(path, "wb") as file:
        file.write(content)

    labels: dict[str, Any] = {"classes": task.classes, "image_size": config.image_size, "resize": config.resize}
    if config.resize == "crop":
        labels["short_side"] = short_side(config.image_size)
    if task.multilabel:
        labels["thresholds"] = task.thresholds
    else:
        labels["confidence_threshold"] = calibration.threshold or None
    write_json(run / "labels.json", labels)
    logger.info("%s and labels.json are in %s", path.name, run.folder)


def sample_images(run: Run, size: int, n: int = 16) -> "torch.Tensor":
    """Return random crops of the validation images in val_batch.png, (n, 3, size, size) of uint8."""
    import torch
    from torchvision.transforms import v2

    from data.image_io import read_image

    crop = v2.Compose([v2.PILToTensor(), v2.RandomResizedCrop(size, scale=(0.02, 0.1))])
    sheet = read_image(run / "val_batch.png")
    with isolated_rng(0):
        return torch.stack([crop(sheet) for _ in range(n)])


if __name__ == "__main__":
    run_script(main, lambda: parse(Options))
