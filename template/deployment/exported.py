"""A network as a file for other programs: with its preprocessing at the front and probabilities at the end."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from core.errors import UserError
from core.task import Task
from models.classifier import Classifier

Compute = Callable[[torch.Tensor], torch.Tensor]


class Probabilities(nn.Module):
    """Pictures (N, 3, H, W), uint8 → probabilities (N, n_classes), float."""

    def __init__(self, network: Classifier, task: Task, temperature: float) -> None:
        """Put the last step on a network.

        Args:
            network: normalises by itself.
            task: makes probabilities of logits.
            temperature: logits are divided by it.
        """
        super().__init__()
        self.network, self.task, self.temperature = network, task, temperature

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """As above."""
        return self.task.activate(self.network(pictures), self.temperature)


def write_onnx(network: nn.Module, pictures: torch.Tensor, path: Path) -> None:
    """Writes ONNX; the input is called `pictures`, the output `probabilities`.

    Args:
        network: in eval mode.
        pictures: two of the size it takes; their number stays free.
        path: the file.

    Raises:
        UserError: a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install onnx onnxscript onnxruntime") from error
    for talkative in ("onnxscript", "onnx_ir"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    torch.onnx.export(
        network,
        (pictures,),
        str(path),
        input_names=["pictures"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def read_onnx(path: Path) -> Compute:
    """What an ONNX file computes, by onnxruntime.

    Raises:
        UserError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime is not installed; pip install onnxruntime") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pictures: torch.from_numpy(session.run(None, {"pictures": pictures.numpy()})[0])


def write_pt2(network: nn.Module, pictures: torch.Tensor, path: Path) -> None:
    """Writes what `torch.export.load` reads. As `write_onnx`."""
    shapes = ({0: torch.export.Dim("n", min=1)},)
    torch.export.save(torch.export.export(network, (pictures,), dynamic_shapes=shapes), str(path))


def read_pt2(path: Path) -> Compute:
    """What such a file computes."""
    return torch.export.load(str(path)).module()


FORMATS = {"onnx": (write_onnx, read_onnx), "pt2": (write_pt2, read_pt2)}
