"""Networks of one's own from shared blocks: torchvision's ResNet, with squeeze-and-excitation in each of its blocks."""

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import SqueezeExcitation

from core.errors import UserError
from models.classifier import Classifier


class SEBottleneck(Bottleneck):
    """A bottleneck block that weighs its channels by what it sees all over the picture.

    Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        width = self.bn3.num_features
        self.se = SqueezeExcitation(width, width // 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C', H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(self.se(x) + shortcut)


def se_resnet50(n_classes: int, pretrained: bool = False) -> Classifier:
    """SE-ResNet-50; at 1,000 classes it has 28,088,024 parameters."""
    return build(n_classes, pretrained)


def se_resnext50(n_classes: int, pretrained: bool = False) -> Classifier:
    """SE-ResNeXt-50 (32 × 4d); at 1,000 classes it has 27,559,896 parameters."""
    return build(n_classes, pretrained, groups=32, width_per_group=4)


def build(n_classes: int, pretrained: bool, **settings: int) -> Classifier:
    """A ResNet of these blocks, with as many of them in each stage as ResNet-50 has."""
    if pretrained:
        raise UserError("there are no ImageNet weights for this network; use --weights none or a file")
    backbone = ResNet(SEBottleneck, [3, 4, 6, 3], **settings)
    n_features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    return Classifier(backbone, n_features, n_classes)
