"""Networks by name. A new one is a function or class and a line in `MODELS`.

It is called with `n_classes` and, where asked for, `pretrained=True` or `False`; without the latter it does what suits
it best. Building one never changes another, and nothing is downloaded before that.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from config import Config
from models.check import check_batch
from models.classifier import Classifier, Normalize, WeightsError, load_weights
from models.MyCNN import MyCNN
from models.resnet import resnet18
from models.summary import summarize
from Project import Run
from utils import UserError, brief, lookup, read_json

logger = logging.getLogger(__name__)

MODELS: dict[str, Callable[..., Classifier]] = {
    "resnet18": resnet18,
    "my_cnn": MyCNN,
}


def get_model(name: str, n_classes: int, weights: str | Path | None = None) -> Classifier:
    """Builds a network by name.

    Args:
        name: a key of `MODELS`.
        n_classes: number of classes.
        weights: "imagenet", "none" or a file. With weights the backbone is frozen; with none everything trains. By
            default "imagenet" for networks that have such weights, else "none".

    Returns:
        A new network: pictures (N, 3, H, W), uint8 → logits (N, n_classes).

    Raises:
        UserError: no such name, or the weights cannot be had or do not fit.
    """
    build = lookup(name, MODELS, "model")
    if weights is None:
        return build(n_classes)
    network = build(n_classes, pretrained=weights == "imagenet")
    if weights not in ("imagenet", "none"):
        load_weights(network, Path(weights))
        network.freeze()
    return network


def build_network(
    config: Config,
    n_classes: int,
    statistics: tuple[Sequence[float], Sequence[float]],
    resumed: bool = False,
) -> tuple[Classifier, str]:
    """The network that the options ask for.

    The demo must run anywhere: where ImageNet weights cannot be had and nobody asked for them, it trains from scratch.

    Args:
        config: model, weights, normalize, dataset.
        n_classes: number of classes.
        statistics: mean and standard deviation of each channel of the training pictures, from 0 to 1.
        resumed: the weights will be put back from `last.pt`, so none are loaded here.

    Returns:
        The network, and where its weights come from: "imagenet", "none" or a file.

    Raises:
        UserError: as `get_model` does.
    """
    try:
        network = get_model(config.model, n_classes, "none" if resumed else config.weights)
    except WeightsError as error:
        if config.dataset != "demo" or config.weights is not None:
            raise
        logger.info("%s; the demo trains from scratch", str(error).partition(";")[0])
        network = get_model(config.model, n_classes, "none")
    if resumed and config.weights != "none":
        network.freeze()
    if config.normalize != "imagenet":
        network.normalize = Normalize(*(statistics if config.normalize == "data" else ((0, 0, 0), (1, 1, 1))))
    return network, config.weights or ("imagenet" if network.frozen else "none")


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
        raise UserError(f"{run.folder} cannot be loaded ({brief(error)})") from error
    return network.eval()


__all__ = [
    "MODELS",
    "Classifier",
    "MyCNN",
    "build_network",
    "check_batch",
    "get_model",
    "load_network",
    "resnet18",
    "summarize",
]
