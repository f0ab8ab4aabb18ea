"""Networks by name.

A custom network is a class or function and a line in `MODELS`. It is called with `n_classes`, and with `pretrained` if
`--weights` is given, and returns a new `Classifier`, which is a backbone with a linear head. If it has pretrained
weights, `pretrained` is True by default, and it returns the network frozen, by `freeze()`; see `resnet18`. If it has
none, `pretrained` is False by default and True raises a `UserError`; see `MyCNN`.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision

from config import Config
from core.environment import rank
from core.errors import UserError, format_error, lookup
from core.files import read_json
from core.processes import broadcast_parameters, local_main_first
from models.classifier import Classifier, Normalize, WeightsError, load_weights
from models.MyCNN import MyCNN
from models.pretrained import native_image_size, timm_model, torchvision_model
from models.resnet import resnet18
from models.summary import summarize
from Project import Run

logger = logging.getLogger(__name__)

MODELS: dict[str, Callable[..., Classifier]] = {
    "resnet18": resnet18,
    "my_cnn": MyCNN,
}


def get_builder(name: str) -> Callable[..., Classifier]:
    """Look up a network of `MODELS`, of torchvision or, as timm/NAME, of timm."""
    if name.startswith("timm/"):
        return partial(timm_model, name.removeprefix("timm/"))
    builders = dict(MODELS)
    for other in torchvision.models.list_models(module=torchvision.models):
        builders.setdefault(other, partial(torchvision_model, other))
    return lookup(name, builders, "model")


def get_model(name: str, n_classes: int, weights: str | Path | None = None) -> Classifier:
    """Build a network from images (N, 3, H, W), uint8, to logits (N, n_classes).

    Args:
        name: a key of `MODELS`, a network of torchvision, or timm/NAME.
        n_classes: number of classes.
        weights: imagenet, none or a file; with weights the backbone is frozen (default: imagenet if the network has
            such weights, else none).

    Raises:
        UserError: there is no such network, or the weights are not available or do not fit.
    """
    build = get_builder(name)
    if weights is None:
        network = build(n_classes)
        network.weights = "imagenet" if network.frozen else "none"
        return network
    network = build(n_classes, pretrained=weights == "imagenet")
    network.weights = str(weights)
    if weights in ("imagenet", "none"):
        return network
    network.missing_keys = load_weights(network, Path(weights))
    if not network.missing_keys:
        return network.freeze()
    logger.warning("%s does not hold the whole backbone, so it is not frozen by default", weights)
    return network


def build_network(
    config: Config,
    n_classes: int,
    statistics: tuple[Sequence[float], Sequence[float]] | None,
    resumed: dict[str, torch.Tensor] | None = None,
) -> Classifier:
    """Build the network that the options ask for.

    Args:
        config: before it is resolved.
        n_classes: number of classes.
        statistics: mean and standard deviation of each channel of the training images, in the range [0, 1].
        resumed: weights of an interrupted run, instead of those in the options.
    """
    with local_main_first():  # weights are downloaded once per machine
        try:
            network = get_model(config.model, n_classes, "none" if resumed else config.weights)
        except WeightsError as error:
            if config.dataset != "demo" or config.weights is not None:
                raise
            logger.info("%s; the demo trains from scratch", str(error).partition(";")[0])
            network = get_model(config.model, n_classes, "none")
    if resumed:
        try:
            network.load_state_dict(resumed)
        except RuntimeError as error:
            message = f"the weights of this run do not fit {config.model}; was its code changed?"
            raise UserError(f"{message} ({format_error(error)})") from error
    if config.freeze is not None:
        freeze(network, config.freeze, config.weights or network.weights)
    if config.unfreeze_epoch and not network.n_frozen:
        raise UserError(
            f"--unfreeze-epoch {config.unfreeze_epoch}: nothing is frozen; add --weights or --freeze"
        )
    if config.normalize == "data":
        if not statistics:
            raise UserError("--normalize data needs the check of the images, data/check.py")
        network.normalize = Normalize(*statistics)
    elif config.normalize == "none":
        network.normalize = Normalize(mean=(0, 0, 0), std=(1, 1, 1))
    return network


def freeze(network: Classifier, stages: Any, weights: str) -> None:
    """Freeze all of the backbone, none of it or so many stages; refuse to freeze what has not been trained."""
    if weights == "none" and stages not in ("none", 0):
        raise UserError(
            f"--freeze {stages}: without weights the backbone has not been trained; add --weights"
        )
    network.freeze({"all": None, "none": 0}.get(stages, stages))
    for name, parameter in network.named_parameters():
        if name in network.missing_keys and not parameter.requires_grad:
            raise UserError(
                f"--freeze {stages}: {name} is not in {weights}, so it has to be trained; freeze less"
            )


def load_best(network: Classifier, run: Run) -> None:
    """Load the best weights of a run, in all processes."""
    if rank() == 0:
        device = network.normalize.mean.device
        network.load_state_dict(torch.load(run.best, map_location=device, weights_only=True))
    broadcast_parameters(network)


def load_network(run: Run) -> Classifier:
    """Load the network of a run with its best weights, in eval mode; raise a UserError if that is impossible."""
    if not run.best.is_file():
        raise UserError(f"{run.folder} holds no best.pt: the run ended before its first epoch did")
    try:
        options = read_json(run.config)["options"]
        network = get_model(options["model"], len(read_json(run.classes)), "none")
        network.load_state_dict(torch.load(run.best, map_location="cpu", weights_only=True))
    except Exception as error:  # which one depends on what the file holds
        raise UserError(f"{run.folder} cannot be loaded ({format_error(error)})") from error
    return network.eval()


__all__ = [
    "MODELS",
    "Classifier",
    "MyCNN",
    "build_network",
    "get_model",
    "load_best",
    "load_network",
    "native_image_size",
    "resnet18",
    "summarize",
]
