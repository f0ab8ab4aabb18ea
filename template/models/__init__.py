"""Networks by name. A new one is a function or class and a line in `MODELS`.

It is called with `n_classes` and, where asked for, `pretrained=True` or `False`; without the latter it does what suits
it best. Building one never changes another, and nothing is downloaded before that.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torchvision

from config import Config
from core.errors import UserError, format_error, lookup
from core.files import read_json
from core.processes import broadcast_parameters, local_main_first, rank
from models.classifier import Classifier, Normalize, WeightsError, load_weights
from models.MyCNN import MyCNN
from models.MyMobileNet import my_mobilenet
from models.pretrained import native_image_size, published, timm_model
from models.resnet import resnet18
from models.SEResNet import se_resnet50, se_resnext50
from models.summary import summarize
from Project import Run

logger = logging.getLogger(__name__)

MODELS: dict[str, Callable[..., Classifier]] = {
    "resnet18": resnet18,
    "my_cnn": MyCNN,
    "my_mobilenet": my_mobilenet,
    "se_resnet50": se_resnet50,
    "se_resnext50": se_resnext50,
}


def builder(name: str) -> Callable[..., Classifier]:
    """What builds the network of this name: one of `MODELS`, of torchvision's or, as timm/NAME, of timm's.

    Raises:
        UserError: there is no such name.
    """
    if name.startswith("timm/"):
        return partial(timm_model, name.removeprefix("timm/"))
    listed = torchvision.models.list_models(module=torchvision.models)
    theirs: dict[str, Callable[..., Classifier]] = {
        other: partial(published, other) for other in listed if other not in MODELS
    }
    return lookup(name, MODELS | theirs, "model")


def get_model(name: str, n_classes: int, weights: str | Path | None = None) -> Classifier:
    """Builds a network by name.

    Args:
        name: a key of `MODELS`, a network of torchvision's, or timm/NAME.
        n_classes: number of classes.
        weights: "imagenet", "none" or a file. With weights the backbone is frozen; with none everything trains. By
            default "imagenet" for networks that have such weights, else "none".

    Returns:
        A new network: pictures (N, 3, H, W), uint8 → logits (N, n_classes).

    Raises:
        UserError: no such name, or the weights are not available or do not fit.
    """
    build = builder(name)
    if weights is None:
        network = build(n_classes)
        network.weights = "imagenet" if network.frozen else "none"
        return network
    network = build(n_classes, pretrained=weights == "imagenet")
    network.weights = str(weights)
    if weights not in ("imagenet", "none"):
        network.missing_keys = load_weights(network, Path(weights))
        if network.missing_keys:
            logger.warning("not all of the backbone is in %s, so it is not frozen by itself", weights)
        else:
            network.freeze()
    return network


def build_network(
    config: Config,
    n_classes: int,
    statistics: tuple[Sequence[float], Sequence[float]] | None,
    resumed: dict[str, torch.Tensor] | None = None,
) -> Classifier:
    """Build the network that the options ask for.

    The demo must run anywhere: where ImageNet weights are not available and nobody asked for them, it trains from
    scratch.

    Args:
        config: model, weights, freeze, normalize, dataset.
        n_classes: number of classes.
        statistics: mean and standard deviation of each channel of the training images, from 0 to 1.
        resumed: weights of an interrupted run, taken instead of those that the options name.

    Raises:
        UserError: as `get_model` does; or it cannot be frozen as asked.
    """
    try:
        with local_main_first():  # weights are downloaded once on each machine
            network = get_model(config.model, n_classes, "none" if resumed else config.weights)
        if resumed:
            network.load_state_dict(resumed)
    except RuntimeError as error:
        raise UserError(
            f"the weights of this run do not fit {config.model} any more; was its code changed? undo that, or start "
            f"a new run ({format_error(error)})"
        ) from error
    except WeightsError as error:
        if config.dataset != "demo" or config.weights is not None:
            raise
        logger.info("%s; the demo trains from scratch", str(error).partition(";")[0])
        network = get_model(config.model, n_classes, "none")
    if config.freeze is not None:
        freeze(network, config.freeze, config.weights or network.weights)
    if config.unfreeze_epoch and not network.n_frozen:
        raise UserError(f"--unfreeze-epoch {config.unfreeze_epoch}: nothing is frozen; it needs weights, or --freeze")
    if config.normalize == "data" and not statistics:
        raise UserError("--normalize data needs the check of the images, data/check.py")
    if config.normalize != "imagenet":
        network.normalize = Normalize(*(statistics if config.normalize == "data" else ((0, 0, 0), (1, 1, 1))))
    return network


def freeze(network: Classifier, how_much: str | int, weights: str) -> None:
    """Freeze all of the backbone, none of it, or its first stages.

    Args:
        network: changed in place.
        how_much: "all", "none" or the number of stages.
        weights: that it started from.

    Raises:
        UserError: what would be frozen has not been trained, or there are fewer stages.
    """
    if weights == "none" and how_much not in ("none", 0):
        raise UserError(f"--freeze {how_much}: without weights nothing has been learnt that could be kept")
    network.freeze(how_much if isinstance(how_much, int) else {"all": None, "none": 0}[how_much])
    for name, p in network.named_parameters():
        if name in network.missing_keys and not p.requires_grad:
            raise UserError(f"--freeze {how_much}: {name} is not in {weights}, so it has to train; freeze less")


def load_best(network: Classifier, run: Run) -> None:
    """Give a network the weights of the best epoch of a run, in all processes."""
    if rank() == 0:
        device = network.normalize.mean.device
        network.load_state_dict(torch.load(run.best, map_location=device, weights_only=True))
    broadcast_parameters(network)


def load_network(run: Run) -> Classifier:
    """The network of a finished run, with its best weights, in eval mode.

    Args:
        run: its folder alone is enough, wherever it was moved.

    Raises:
        UserError: there are no weights in it, or they do not fit.
    """
    if not run.best.is_file():
        raise UserError(f"{run.folder} holds no best.pt: the run ended before its first epoch did")
    try:
        network = get_model(read_json(run.config)["options"]["model"], len(read_json(run.classes)), "none")
        network.load_state_dict(torch.load(run.best, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a file that holds something else makes torch raise
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
