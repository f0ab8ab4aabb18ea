"""Networks as files for other programs: images in, calibrated probabilities out."""

import io
import logging
from collections.abc import Callable

import torch
from torch import nn

from core.task import Task
from models.classifier import Classifier

BATCH = ({0: torch.export.Dim("n", min=1)},)  # any number of images


class Probabilities(nn.Module):
    """Network from images, (N, 3, H, W) of uint8, to calibrated probabilities, (N, n_classes) of float32."""

    def __init__(self, network: Classifier, task: Task, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.temperature = temperature

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.task.activate(self.network(images), self.temperature)


def to_onnx(network: nn.Module, images: torch.Tensor) -> bytes:
    """Return a network in eval mode as the content of an ONNX file, traced on two images."""
    for name in ("onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.WARNING)
    program = torch.onnx.export(
        network,
        (images,),
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=BATCH,
        dynamo=True,
        verbose=False,
    )
    return program.model_proto.SerializeToString()


def from_onnx(content: bytes) -> Callable[..., torch.Tensor]:
    """Return the function that an ONNX file computes, run by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return run


def to_pt2(network: nn.Module, images: torch.Tensor) -> bytes:
    """Return a network in eval mode as the content of a file for `torch.export.load`, traced on two images."""
    content = io.BytesIO()
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=BATCH), content)
    return content.getvalue()


def from_pt2(content: bytes) -> Callable[..., torch.Tensor]:
    """Return the function that such a file computes."""
    return torch.export.load(io.BytesIO(content)).module()


FORMATS = {"onnx": (to_onnx, from_onnx), "pt2": (to_pt2, from_pt2)}
