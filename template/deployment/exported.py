"""Networks as files for other programs: images in, calibrated probabilities out."""

import io
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.task import Task
from models.classifier import Classifier

BATCH = ({0: torch.export.Dim("n", min=1)},)  # any number of images
Export = tuple[bytes, Callable[..., Tensor]]  # the content of a file, and the function that it computes


class Probabilities(nn.Module):
    """Network from images, (N, 3, H, W) of uint8, to calibrated probabilities, (N, n_classes) of float32."""

    def __init__(self, network: Classifier, task: Task, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        return self.task.activate(self.network(images), self.temperature)


def to_onnx(network: nn.Module, images: Tensor) -> Export:
    """Export a network in eval mode for onnxruntime, traced on two images."""
    import onnxruntime

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
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def compute(images: Tensor) -> Tensor:
        probabilities = session.run(None, {"images": images.numpy()})[0]
        return torch.from_numpy(probabilities)

    return content, compute


def to_pt2(network: nn.Module, images: Tensor) -> Export:
    """Export a network in eval mode for `torch.export.load`, traced on two images."""
    file = io.BytesIO()
    program = torch.export.export(network, (images,), dynamic_shapes=BATCH)
    torch.export.save(program, file)
    file.seek(0)
    return file.getvalue(), torch.export.load(file).module()


FORMATS = {"onnx": to_onnx, "pt2": to_pt2}
