"""What every network here is: pictures normalised by its first layer, a backbone, and a head for the classes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from core.errors import UserError

logger = logging.getLogger(__name__)

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
        n_features: width of the features.
        n_frozen: how many stages of the backbone, from the picture on, stay as they are: no gradient, and eval mode.
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """Puts a new head on a backbone.

        Args:
            backbone: any network whose output is (N, n_features).
            n_features: width of that output.
            n_classes: width of the head's output.
            mean, std: what the backbone expects its pictures to be normalised by, of values from 0 to 1.
        """
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.backbone = backbone
        self.head = nn.Linear(n_features, n_classes)
        self.n_features = n_features
        self.n_frozen = 0
        self.weights = "none"  # that it started from
        self.missing_keys: list[str] = []  # what a file of weights did not hold of the backbone
        self.bf16 = False
        self.to(memory_format=torch.channels_last)  # measured on a CPU: a frozen resnet18 is a third faster so

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, H, W), uint8, or their features (N, n_features) → logits (N, n_classes), float."""
        features = images if images.ndim == 2 else self.features(images)
        return self.head(features.float())

    def features(self, images: torch.Tensor, bf16: bool | None = None) -> torch.Tensor:
        """Compute what the head takes.

        Args:
            images: (N, 3, H, W) of uint8.
            bf16: whether to compute in bfloat16; default: in train mode, where `use_bf16` said so.

        Returns:
            (N, n_features) of float32 or bfloat16.
        """
        images = self.normalize(images)
        bf16 = self.bf16 and self.training if bf16 is None else bf16
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            return self.backbone(images)

    def use_bf16(self, on: bool) -> None:
        """Let the backbone compute in bfloat16 while it trains; scores are always computed in full precision."""
        self.bf16 = on

    @property
    def frozen(self) -> bool:
        """Whether only the head trains."""
        return self.n_frozen == len(self.stages())

    def stages(self) -> list[list[nn.Module]]:
        """The backbone in pieces, from the picture to the features: a ResNet's stem and its four layers, for example.

        What holds more than four fifths of the parameters is taken apart; single layers in a row are one stage.
        """
        everything = count_parameters(self.backbone)
        parts = [self.backbone]
        while large := [p for p in parts if count_parameters(p) > 0.8 * everything and any(True for _ in p.children())]:
            at = parts.index(large[0])
            parts[at : at + 1] = [child for child in large[0].children() if count_parameters(child)]
        stages: list[list[nn.Module]] = []
        for part in parts:
            single = not any(True for _ in part.children())
            if single and stages and all(not any(True for _ in other.children()) for other in stages[-1]):
                stages[-1].append(part)
            else:
                stages.append([part])
        return stages

    def freeze(self, n: int | None = None) -> "Classifier":
        """Freezes the first stages of the backbone, so that only what follows them trains.

        Args:
            n: how many; all by default, and then only the head trains.

        Returns:
            The network itself.

        Raises:
            UserError: it has fewer stages.
        """
        stages = self.stages()
        if n is not None and n > len(stages):
            raise UserError(f"--freeze {n}: the backbone of this network has {len(stages)} stages")
        self.n_frozen = len(stages) if n is None else n
        self.backbone.requires_grad_(False)
        for part in (part for stage in stages[self.n_frozen :] for part in stage):
            part.requires_grad_(True)
        if not self.n_frozen:
            self.backbone.requires_grad_(True)  # those that are in no stage, such as a transformer's class token
        return self.train(self.training)

    def train(self, mode: bool = True) -> "Classifier":
        """Switches between train and eval mode, except for what is frozen.

        In train mode its BatchNorm layers would go on adapting their statistics, although nothing is trained.
        """
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        for part in (part for stage in self.stages()[: self.n_frozen] for part in stage):
            part.eval()
        return self


def count_parameters(module: nn.Module) -> int:
    """How many numbers a module can learn."""
    return sum(p.numel() for p in module.parameters())


def load_weights(network: Classifier, file: Path) -> list[str]:
    """Loads a file of weights where names and shapes match, and says what came of it.

    Args:
        network: changed in place.
        file: a state dict, of a run here (`best.pt`) or of the bare backbone as torchvision names it.

    Returns:
        Names of the backbone's parameters and statistics that were not in it.

    Raises:
        UserError: the file is missing, is none, or nothing in it fits the backbone; nothing has been loaded then.
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
    if {"head.weight", "head.bias"} - set(fitting):  # one without the other would be no head
        fitting = {name: value for name, value in fitting.items() if not name.startswith("head.")}
    new, skipped = sorted(set(own) - set(fitting)), sorted(set(state) - set(fitting))
    if not any(name.startswith("backbone.") and fitting[name].ndim for name in fitting):
        name = next(name for name in new if name.startswith("backbone."))
        found = tuple(state[name].shape) if name in state else "nothing"
        raise UserError(
            f"{file} does not fit this network: {name} needs {tuple(own[name].shape)}, found is {found}; "
            "is it another model's?"
        )
    network.load_state_dict(fitting, strict=False)
    counts = {"loaded": fitting, "skipped": skipped, "left new": new}
    logger.info("%s: %s", file, ", ".join(f"{len(names)} {what}" for what, names in counts.items()))
    for what, names in (("skipped", skipped), ("left new", new)):
        if names:
            logger.info("  %s: %s", what, ", ".join(names[:6]) + (" …" if len(names) > 6 else ""))
    return [name for name in new if name.startswith("backbone.") and not name.endswith(".num_batches_tracked")]
