"""resnet18 for fine-tuning: pretrained on ImageNet, frozen, with a new head."""

import torchvision
from torch import nn

from models.classifier import Classifier, WeightsError
from utils import brief


def resnet18(n_classes: int, pretrained: bool = True) -> Classifier:
    """ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385).

    Args:
        n_classes: number of classes.
        pretrained: with torchvision's ImageNet weights the backbone is frozen and only the head trains; without, all
            of it is new and trains.

    Returns:
        A network for pictures of at least 32 px a side.

    Raises:
        WeightsError: the weights cannot be had.
    """
    try:
        backbone = torchvision.models.resnet18(weights="IMAGENET1K_V1" if pretrained else None)
    except Exception as error:  # no network, no permission, a file in torch's cache that holds something else
        url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
        raise WeightsError(
            f"the ImageNet weights of resnet18 cannot be had ({brief(error)}); connect to the internet, or download "
            f"{url} elsewhere and give the file with --weights FILE, or train everything with --weights none"
        ) from error
    n_features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    network = Classifier(backbone, n_features, n_classes)
    return network.freeze() if pretrained else network
