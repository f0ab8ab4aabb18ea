"""A small convolutional network, as an example of a custom network."""

from torch import nn

from core.errors import UserError
from models.classifier import Classifier


class MyCNN(Classifier):
    """Four stages of 3 × 3 convolutions, each with half the resolution and twice the channels of the one before."""

    def __init__(self, n_classes: int, pretrained: bool = False, width: int = 16) -> None:
        if pretrained:
            raise UserError("my_cnn has no ImageNet weights; use --weights none or a file")
        backbone = nn.Sequential(
            stage(3, width),
            stage(width, 2 * width),
            stage(2 * width, 4 * width),
            stage(4 * width, 8 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        super().__init__(backbone, n_features=8 * width, n_classes=n_classes)


def stage(c_in: int, c_out: int) -> nn.Sequential:
    """Return a stage: (N, c_in, H, W) → (N, c_out, ⌈H/2⌉, ⌈W/2⌉)."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, ceil_mode=True),
    )
