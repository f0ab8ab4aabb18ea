"""A network of one's own from shared blocks: MobileNetV2, written with torchvision's `Conv2dNormActivation`."""

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from core.errors import UserError
from models.classifier import Classifier

# For each stage: how much wider the blocks are inside, channels, number of blocks, stride of the first.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Wide inside, narrow outside, with a shortcut between the narrow ends.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, arXiv:1801.04381.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = c_in * expansion
        layers = [Conv2dNormActivation(c_in, width, 1, activation_layer=nn.ReLU6)] if expansion > 1 else []
        layers += [
            Conv2dNormActivation(width, width, 3, stride=stride, groups=width, activation_layer=nn.ReLU6),
            Conv2dNormActivation(width, c_out, 1, activation_layer=None),
        ]
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and c_in == c_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) → (N, c_out, H / stride, W / stride)."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


def my_mobilenet(n_classes: int, pretrained: bool = False) -> Classifier:
    """MobileNetV2; at 1,000 classes it has 3,504,872 parameters."""
    if pretrained:
        raise UserError("there are no ImageNet weights for this network; use --weights none or a file, or mobilenet_v2")
    stages: list[nn.Module] = [Conv2dNormActivation(3, 32, 3, stride=2, activation_layer=nn.ReLU6)]
    c_in = 32
    for expansion, c_out, n, stride in STAGES:
        blocks = [InvertedResidual(c_out if i else c_in, c_out, 1 if i else stride, expansion) for i in range(n)]
        stages.append(nn.Sequential(*blocks))
        c_in = c_out
    stages += [Conv2dNormActivation(c_in, 1280, 1, activation_layer=nn.ReLU6)]
    backbone = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
    return Classifier(backbone, n_features=1280, n_classes=n_classes)
