"""ResNet-18 for fine-tuning, as an example of a network with pretrained weights."""

from models.classifier import Classifier
from models.pretrained import torchvision_model


def resnet18(n_classes: int, pretrained: bool = True) -> Classifier:
    """Build ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385).

    Raises:
        WeightsError: the weights are not available.
    """
    return torchvision_model("resnet18", n_classes, pretrained)
