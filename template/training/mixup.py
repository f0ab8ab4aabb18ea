"""MixUp and CutMix, by torchvision: while training, each picture of a batch is mixed with its neighbour."""

from collections.abc import Callable

import torch
from torch import nn
from torchvision.transforms import v2

from core.errors import UserError, lookup
from models.classifier import Classifier

MIXES: dict[str, Callable[..., nn.Module]] = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


def mix(
    how: str, network: Classifier, loss: Callable[..., torch.Tensor], n_classes: int
) -> Callable[..., torch.Tensor]:
    """What `--mix` asks for: from now on the network mixes the pictures that it trains on; metrics keep to the labels.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, and Yun et al., "CutMix: Regularization
    Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019.

    Args:
        how: "none", "mixup" or "cutmix".
        network: its pictures are mixed once they are normalised.
        loss: takes logits and labels, also as probabilities (N, C).
        n_classes: number of classes.

    Returns:
        The loss, on the mixed labels of the batch that was mixed last.

    Raises:
        UserError: there is no such way, or the loss takes no probabilities.
    """
    if how == "none":
        return loss
    build = lookup(how, MIXES, "way to mix")
    weight = getattr(loss, "keywords", {}).get("weight", torch.empty(0))  # of the classes, where they have some
    try:
        logits = torch.zeros(2, n_classes, device=weight.device)
        loss(logits, torch.full_like(logits, 1 / n_classes))
    except (RuntimeError, IndexError, TypeError) as error:
        raise UserError("--mix needs a loss that takes probabilities, such as cross_entropy") from error
    shares: torch.Tensor | None = None  # (N, N): how much of each picture is in each

    def mixed_pictures(normalize: nn.Module, _: tuple, images: torch.Tensor) -> torch.Tensor:
        nonlocal shares
        shares = None
        if normalize.training and len(images) > 1:
            # torchvision mixes labels as it does pictures: where each picture is a class, labels become the shares.
            numbers = torch.arange(len(images), device=images.device)
            images, shares = build(num_classes=len(images))(images, numbers)
        return images

    def mixed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal shares
        mine, shares = shares, None
        if mine is None:  # the batch was not mixed
            return loss(logits, labels)
        hot = labels if labels.ndim == 2 else nn.functional.one_hot(labels, n_classes)
        return loss(logits, mine.to(logits.dtype) @ hot.to(logits.dtype))

    network.normalize.register_forward_hook(mixed_pictures)
    return mixed_loss
