"""What every network here is: pictures normalised by its first layer, a backbone, and a head for the classes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from utils import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class WeightsError(UserError):
    """Pretrained weights that cannot be downloaded."""


class Normalize(nn.Module):
    """From bytes to what a network likes. Mean and std are saved with the weights, so they cannot be forgotten."""

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        """For each channel its mean and standard deviation, of values from 0 to 1."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), uint8 or float, 0 to 255 → the same shape, float, mean about 0 and deviation about 1."""
        images = images.to(self.mean.dtype, memory_format=torch.channels_last)
        return (images / 255 - self.mean) / self.std


class Classifier(nn.Module):
    """A backbone that computes features, and a head that makes classes of them.

    Attributes:
        backbone: (N, 3, H, W) → (N, n_features).
        head: the last layer, (N, n_features) → (N, n_classes).
        frozen: whether the backbone stays as it is: no gradient, and eval mode for ever.
    """

    def __init__(self, backbone: nn.Module, n_features: int, n_classes: int) -> None:
        """Puts a new head on a backbone.

        Args:
            backbone: any network whose output is (N, n_features).
            n_features: width of that output.
            n_classes: width of the head's output.
        """
        super().__init__()
        self.normalize = Normalize()
        self.backbone = backbone
        self.head = nn.Linear(n_features, n_classes)
        self.frozen = False
        self.to(memory_format=torch.channels_last)  # measured on a CPU: a frozen resnet18 is a third faster so

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, H, W), uint8 → logits (N, n_classes), float."""
        return self.head(self.backbone(self.normalize(images)))

    def freeze(self) -> "Classifier":
        """Freezes the backbone, so that only the head trains. Returns the network itself."""
        self.frozen = True
        self.backbone.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "Classifier":
        """Switches between train and eval mode, except for a frozen backbone.

        In train mode its BatchNorm layers would go on adapting their statistics, although nothing is trained.
        """
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self


def load_weights(network: Classifier, file: Path) -> None:
    """Loads a file of weights into the network's backbone, and into its head where that fits.

    Args:
        network: changed in place.
        file: a state dict, of a run here (`best.pt`) or of the bare backbone as torchvision names it.

    Raises:
        UserError: the file is missing, is none, or does not fit the backbone; nothing has been loaded then.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}; --weights takes imagenet, none or a file of weights")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that holds something else makes torch raise
        raise UserError(f"{file} cannot be read as a file of weights ({type(error).__name__})") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise UserError(f"{file} is not a state dict, a dict from names to tensors")

    own = network.state_dict()
    if not any(name.startswith("backbone.") for name in state):
        state = {f"backbone.{name}": value for name, value in state.items()}
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    for name in own:
        if name.startswith("backbone.") and name not in fitting:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise UserError(
                f"{file} does not fit this network: {name} needs {tuple(own[name].shape)}, found is {found}; "
                "is it another model's?"
            )
    if {"head.weight", "head.bias"} - set(fitting):
        fitting = {name: value for name, value in fitting.items() if not name.startswith("head.")}
    network.load_state_dict(fitting, strict=False)
