"""resnet18 for fine-tuning: pretrained on ImageNet, frozen, with a new head."""

from models.classifier import Classifier
from models.pretrained import published


def resnet18(n_classes: int, pretrained: bool = True) -> Classifier:
    """ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385).

    Args:
        n_classes: number of classes.
        pretrained: with torchvision's ImageNet weights the backbone is frozen and only the head trains; without, all
            of it is new and trains.

    Returns:
        A network for pictures of at least 32 px a side.

    Raises:
        WeightsError: the weights are not available.
    """
    return published("resnet18", n_classes, pretrained)
