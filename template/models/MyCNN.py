"""A small network of one's own, to read, to change and to learn from scratch with."""

from torch import nn

from core.errors import UserError
from models.classifier import Classifier


class MyCNN(Classifier):
    """Four stages of 3 × 3 convolutions, each half as large and twice as wide as the one before."""

    def __init__(self, n_classes: int, pretrained: bool = False, width: int = 16) -> None:
        """Builds the network.

        Args:
            n_classes: number of classes.
            pretrained: there are no weights for it, so True is refused.
            width: channels of the first stage.

        Raises:
            UserError: pretrained weights were asked for.
        """
        if pretrained:
            raise UserError("my_cnn has no ImageNet weights; use --weights none or a file")
        stages = [self.stage(3, width)]
        stages += [self.stage(width << i, width << (i + 1)) for i in range(3)]
        backbone = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
        super().__init__(backbone, n_features=8 * width, n_classes=n_classes)

    @staticmethod
    def stage(c_in: int, c_out: int) -> nn.Sequential:
        """(N, c_in, H, W) → (N, c_out, ⌈H/2⌉, ⌈W/2⌉)."""
        return nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, ceil_mode=True),
        )
