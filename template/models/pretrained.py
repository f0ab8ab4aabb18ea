"""torchvision's classification networks by name, and timm's: their last layer is replaced by one for your classes."""

import torch
import torchvision
from torch import nn

from core.errors import UserError, format_error
from models.classifier import Classifier, WeightsError


def published(name: str, n_classes: int, pretrained: bool = True) -> Classifier:
    """Any classification network that torchvision lists.

    The first version of its ImageNet weights is taken where there are several: those trained with stronger
    regularisation score better on ImageNet, but their features are worse to build on (Kornblith, Shlens and Le, "Do
    Better ImageNet Models Transfer Better?", CVPR 2019).

    Args:
        name: as torchvision lists it: "efficientnet_b3".
        n_classes: number of classes.
        pretrained: with ImageNet weights the backbone is frozen and only the head trains; without, all of it is new and
            trains.

    Raises:
        WeightsError: the weights are not available.
    """
    weights = imagenet_weights(name)
    preset = weights.transforms()
    settings = {"weights": weights if pretrained else None}
    if name.startswith("vit_"):
        settings["image_size"] = preset.crop_size[0]
    more_heads = name in ("googlenet", "inception_v3")
    if more_heads:  # they normalise in their own way, whether pretrained or not
        settings |= {"aux_logits": True, "init_weights": not pretrained, "transform_input": True}
    try:
        backbone = torchvision.models.get_model(name, **settings)
    except Exception as error:  # no network, no permission, a file in torch's cache that holds something else
        if not pretrained:
            raise
        raise WeightsError(
            f"the ImageNet weights of {name} are not available ({format_error(error)}); connect to the internet, or "
            f"download {weights.url} elsewhere and give the file with --weights FILE, or train with --weights none"
        ) from error
    if more_heads:  # which only serve those who train them from scratch for weeks
        backbone.aux_logits = False
        for head in {"aux1", "aux2", "AuxLogits"} & set(dict(backbone.named_children())):
            setattr(backbone, head, None)
    network = Classifier(backbone, remove_head(backbone), n_classes, preset.mean, preset.std)
    return network.freeze() if pretrained else network


def imagenet_weights(name: str) -> torchvision.models.WeightsEnum:
    """A network's ImageNet weights, with all that is known of them; nothing is downloaded."""
    weights = torchvision.models.get_model_weights(name)
    return weights.__members__.get("IMAGENET1K_V1", weights.DEFAULT)


def remove_head(network: nn.Module) -> int:
    """Takes the last layer of a network away, whatever its name, and returns the width of what comes before it."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    name, head = layers[-1]
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, nn.Identity())
    return head.in_features if isinstance(head, nn.Linear) else head.in_channels


def timm_model(name: str, n_classes: int, pretrained: bool = True) -> Classifier:
    """Any network of timm, which has to be installed.

    Args:
        name: as timm lists it: "convnextv2_nano".
        n_classes: number of classes.
        pretrained: as above.

    Raises:
        UserError: timm is not installed, or has no such network.
        WeightsError: the weights are not available.
    """
    timm = import_timm()
    if not timm.is_model(name):
        raise UserError(f"timm has no network {name!r}; timm.list_models('*{name[:4]}*') lists some that are like it")
    try:
        backbone = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:
        raise WeightsError(
            f"the weights of timm/{name} are not available ({format_error(error)}); try --weights none"
        ) from error
    settings = timm.data.resolve_model_data_config(backbone)
    with torch.no_grad():
        n_features = backbone.eval()(torch.zeros(1, *settings["input_size"])).shape[1]
    network = Classifier(backbone.train(), n_features, n_classes, settings["mean"], settings["std"])
    return network.freeze() if pretrained else network


def import_timm():
    """The library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError("timm is not installed; pip install timm") from error
    return timm


def native_image_size(name: str) -> tuple[int | None, bool]:
    """Side of the pictures that a published network was made for, in pixels.

    Args:
        name: of a network; of any.

    Returns:
        The side, None for a network that is not known here; and whether it takes no other.
    """
    if name in torchvision.models.list_models(module=torchvision.models):
        return imagenet_weights(name).transforms().crop_size[0], name.startswith(("vit_", "maxvit_"))
    if name.startswith("timm/"):
        try:
            settings = import_timm().get_pretrained_cfg(name.removeprefix("timm/"))
        except RuntimeError as error:
            raise UserError(f"timm has no weights {name!r} ({format_error(error)})") from error
        return (settings.input_size[-1], settings.fixed_input_size) if settings else (None, False)
    return None, False
