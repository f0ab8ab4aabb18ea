"""Export a finished run as one file for other programs, and check that it computes the same.

python export.py checkpoint/RUN                 model.onnx, for onnxruntime in any language
python export.py checkpoint/RUN --format pt2    model.pt2, for torch.export.load
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from core.cli import parse, run_script
from core.errors import RunError, UserError
from core.files import atomic_write, write_json

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
    """Export the network, check that the export computes the same, and write it with labels.json."""
    import torch
    from torchvision.transforms import v2

    from data.image_io import read_image
    from data.transformation import short_side
    from deployment.exported import FORMATS, Probabilities
    from utils import load_run

    loaded = load_run(options.run_dir)
    run = loaded.run
    size = loaded.config.image_size
    resize = loaded.config.resize
    network = Probabilities(loaded.network, loaded.task, loaded.calibration.temperature).eval()
    crops = v2.Compose([v2.PILToTensor(), v2.Resize(2 * size), v2.TenCrop(size)])
    images = torch.stack(crops(read_image(run / "val_batch.png")))  # the run folder is enough

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about deprecations within torch
        try:
            content, exported = FORMATS[options.format](network, images[:2])
        except ImportError as error:
            raise UserError(f"{error.name} is not installed; pip install -r requirements.txt") from error
        computed = torch.cat([exported(images[:1]), exported(images[1:])])  # any batch size works
        difference = (computed - network(images)).abs().max().item()
    logger.info("largest difference over %d images: %.1e", len(images), difference)
    if not difference <= TOLERANCE:  # nan is refused too
        raise RunError(f"the export differs by {difference:.1e}; at most {TOLERANCE} is allowed")
    path = run / f"model.{options.format}"
    with atomic_write(path, "wb") as file:
        file.write(content)

    labels: dict[str, Any] = {"classes": loaded.classes, "image_size": size, "resize": resize}
    if resize == "crop":
        labels["short_side"] = short_side(size)
    if loaded.task.multilabel:
        labels["thresholds"] = loaded.task.thresholds
    else:
        labels["confidence_threshold"] = loaded.calibration.confidence_threshold or None
    write_json(run / "labels.json", labels)
    logger.info("%s and labels.json are in %s", path.name, run.folder)


if __name__ == "__main__":
    run_script(main, lambda: parse(Options))
