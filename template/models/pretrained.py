"""Networks of torchvision and timm by name, with a new head for the classes of the data."""

from typing import Any

import torch
import torchvision
from torch import nn

from core.errors import UserError, format_error
from models.classifier import Classifier, WeightsError


def torchvision_model(name: str, n_classes: int, pretrained: bool = True) -> Classifier:
    """Build a classification network of torchvision; with ImageNet weights its backbone is frozen."""
    weights = imagenet_weights(name)
    preset = weights.transforms()
    settings: dict[str, Any] = {}
    if name.startswith("vit_"):
        settings["image_size"] = preset.crop_size[0]
    if name in ("googlenet", "inception_v3"):
        settings = {"aux_logits": True, "init_weights": not pretrained, "transform_input": True}
    try:
        backbone = torchvision.models.get_model(name, weights=weights if pretrained else None, **settings)
    except Exception as error:  # no connection, no permission, a damaged file in torch's cache
        if not pretrained:
            raise
        raise WeightsError(
            f"the ImageNet weights of {name} are not available ({format_error(error)}); download {weights.url} "
            "elsewhere and give it with --weights FILE, or train with --weights none"
        ) from error
    if hasattr(backbone, "aux_logits"):  # auxiliary heads help only to train from scratch
        backbone.aux_logits = False
        backbone.aux1 = backbone.aux2 = backbone.AuxLogits = None
    network = Classifier(backbone, remove_head(backbone), n_classes, preset.mean, preset.std)
    return network.freeze() if pretrained else network


def imagenet_weights(name: str) -> torchvision.models.WeightsEnum:
    """Return the first version of a network's ImageNet weights, without downloading them.

    Later versions score higher on ImageNet, but their features transfer worse (Kornblith, Shlens and Le, "Do Better
    ImageNet Models Transfer Better?", CVPR 2019).
    """
    weights = torchvision.models.get_model_weights(name)
    return weights.__members__.get("IMAGENET1K_V1", weights.DEFAULT)


def remove_head(network: nn.Module) -> int:
    """Replace the last linear or convolutional layer by the identity, and return the width of its input."""
    layers = [
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))
    ]
    name, head = layers[-1]
    network.set_submodule(name, nn.Identity())
    return head.in_features if isinstance(head, nn.Linear) else head.in_channels


def timm_model(name: str, n_classes: int, pretrained: bool = True) -> Classifier:
    """Build a network of timm; with pretrained weights its backbone is frozen."""
    timm = import_timm()
    if not timm.is_model(name):
        raise UserError(f"timm has no network {name!r}; timm.list_models('*{name[:4]}*') lists similar names")
    try:
        backbone = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:
        reason = format_error(error)
        raise WeightsError(
            f"the weights of timm/{name} are not available ({reason}); try --weights none"
        ) from error
    preset = timm.data.resolve_model_data_config(backbone)
    with torch.no_grad():
        n_features = backbone.eval()(torch.zeros(1, *preset["input_size"])).shape[1]
    network = Classifier(backbone.train(), n_features, n_classes, preset["mean"], preset["std"])
    return network.freeze() if pretrained else network


def import_timm() -> Any:
    """Import timm, which is optional."""
    try:
        import timm
    except ImportError as error:
        raise UserError("timm is not installed; pip install timm") from error
    return timm


def native_image_size(name: str) -> tuple[int | None, bool]:
    """Return the image size, in pixels, of a network's pretrained weights, if any, and whether it takes no other."""
    if name in torchvision.models.list_models(module=torchvision.models):
        size = imagenet_weights(name).transforms().crop_size[0]
        return size, name.startswith(("vit_", "maxvit_"))
    if name.startswith("timm/"):
        try:
            preset = import_timm().get_pretrained_cfg(name.removeprefix("timm/"))
        except RuntimeError as error:
            raise UserError(f"timm has no weights {name!r} ({format_error(error)})") from error
        if preset:
            return preset.input_size[-1], preset.fixed_input_size
    return None, False
