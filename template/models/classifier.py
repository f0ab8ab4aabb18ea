"""The base class of all networks: normalization, a backbone and a linear head."""

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
    """Pretrained weights that could not be downloaded."""


class Normalize(nn.Module):
    """Normalization by the mean and standard deviation of each channel, of values in [0, 1]; saved with the weights."""

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize images (N, C, H, W), uint8 or float in the range [0, 255]."""
        images = images.to(self.mean.dtype, memory_format=torch.channels_last)
        return (images / 255 - self.mean) / self.std


class Classifier(nn.Module):
    """A backbone with a linear head. Stages of the backbone can be frozen: no gradient, and always in eval mode.

    The backbone is any network from images (N, 3, H, W), normalized by `mean` and `std`, to features (N, n_features).
    """

    def __init__(
        self,
        backbone: nn.Module,
        n_features: int,
        n_classes: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.backbone = backbone
        self.head = nn.Linear(n_features, n_classes)
        self.n_features = n_features
        self.n_frozen = 0  # stages, from the input on
        self.weights = "none"  # what it started from: imagenet, none or a file
        self.missing_keys: list[str] = []  # parameters and buffers of the backbone that were not in that file
        self.bf16 = False
        self.to(memory_format=torch.channels_last)  # a third faster for a frozen resnet18 on a CPU

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, n_classes) for images (N, 3, H, W), uint8, or for their features (N, n_features)."""
        features = images if images.ndim == 2 else self.features(images)
        return self.head(features.float())

    def features(self, images: torch.Tensor, bf16: bool | None = None) -> torch.Tensor:
        """Return features (N, n_features) for images (N, 3, H, W), uint8; in bfloat16 by default only to train."""
        if bf16 is None:
            bf16 = self.bf16 and self.training
        images = self.normalize(images)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            return self.backbone(images)

    def use_bf16(self, enabled: bool) -> None:
        """Compute the backbone in bfloat16 in train mode; evaluation is always in full precision."""
        self.bf16 = enabled

    @property
    def frozen(self) -> bool:
        """Whether only the head is trainable."""
        return self.n_frozen == len(self.stages())

    def stages(self) -> list[nn.ModuleList]:
        """Split the backbone into stages, from the input on: a ResNet into its stem and four layers.

        A module with more than 80 % of the parameters is split into its children; consecutive layers are one stage.
        """
        stages: list[nn.ModuleList] = []
        previous_is_layer = False
        for module in split(self.backbone, 0.8 * count_parameters(self.backbone)):
            is_layer = not list(module.children())
            if is_layer and previous_is_layer:
                stages[-1].append(module)
            else:
                stages.append(nn.ModuleList([module]))
            previous_is_layer = is_layer
        return stages

    def freeze(self, n: int | None = None) -> "Classifier":
        """Freeze the first `n` stages of the backbone, or all of them by default, and return the network."""
        stages = self.stages()
        n = len(stages) if n is None else n
        if n > len(stages):
            raise UserError(f"--freeze {n}: the backbone of this network has {len(stages)} stages")
        self.n_frozen = n
        # a parameter of no stage, such as a class token, is frozen with the first
        self.backbone.requires_grad_(n == 0)
        for stage in stages[n:]:
            stage.requires_grad_(True)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "Classifier":
        """Set train or eval mode; what is frozen stays in eval mode, so that BatchNorm statistics do not change."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        for stage in self.stages()[: self.n_frozen]:
            stage.eval()
        return self


def split(module: nn.Module, max_parameters: float) -> list[nn.Module]:
    """Split a module into its children, and these into theirs, as long as they have more than so many parameters."""
    children = [child for child in module.children() if count_parameters(child)]
    if not children or count_parameters(module) <= max_parameters:
        return [module]
    return [part for child in children for part in split(child, max_parameters)]


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def load_weights(network: Classifier, file: Path) -> list[str]:
    """Load the weights whose names and shapes match, and return the names of the backbone's that are missing.

    The file is a state dict of a run (`best.pt`) or of a bare backbone, with the names that torchvision gives it.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}; --weights takes imagenet, none or a file of weights")
    own = network.state_dict()
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if not any(name.startswith("backbone.") for name in state):
            state = {f"backbone.{name}": value for name, value in state.items()}
        matching = {
            name: value for name, value in state.items() if name in own and own[name].shape == value.shape
        }
    except Exception as error:  # which one depends on what the file holds
        raise UserError(
            f"{file} is not a state dict, a dict from names to tensors ({type(error).__name__})"
        ) from error

    if not any(name.startswith("backbone.") and value.ndim for name, value in matching.items()):
        reason = "no tensor has the name and the shape of one of the backbone"
        raise UserError(f"{file} does not fit this network: {reason}; give weights of the same --model")
    missing = network.load_state_dict(matching, strict=False).missing_keys
    skipped = sorted(set(state) - set(matching))
    logger.info("%s: %d keys loaded, %d skipped, %d missing", file, len(matching), len(skipped), len(missing))
    if skipped or missing:
        logger.info("skipped: %.200s; missing: %.200s", ", ".join(skipped), ", ".join(missing))
    return [name for name in missing if name.startswith("backbone.")]
