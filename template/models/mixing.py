"""MixUp and CutMix, by torchvision: while training, each picture of a batch is mixed with its neighbour."""

from collections.abc import Callable

import torch
from torch import nn
from torchvision.transforms import v2

from models.classifier import Classifier
from utils import UserError, lookup

MIXES: dict[str, Callable[..., nn.Module]] = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


def mix(
    how: str, network: Classifier, loss: Callable[..., torch.Tensor], n_classes: int
) -> Callable[..., torch.Tensor]:
    """What `--mix` asks for: from now on the network mixes the pictures that it trains on.

    Args:
        how: "none", "mixup" or "cutmix".
        network: its pictures are mixed once they are normalised.
        loss: takes logits and labels.
        n_classes: number of classes.

    Returns:
        The loss, on the labels of mixed pictures.

    Raises:
        UserError: there is no such way, or the loss takes no probabilities.
    """
    if how == "none":
        return loss
    mixing = Mixing(how, n_classes)
    network.normalize.register_forward_hook(lambda module, _, images: mixing(images, module.training))
    return mixing.mixed(loss)


class Mixing:
    """Mixes pictures on their way into the network, and the loss likewise; metrics keep to the unmixed labels.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, and Yun et al., "CutMix: Regularization
    Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019.
    """

    def __init__(self, how: str, n_classes: int) -> None:
        """Chooses the way.

        Args:
            how: "mixup" or "cutmix".
            n_classes: number of classes.

        Raises:
            UserError: there is no such way.
        """
        self.build = lookup(how, MIXES, "way to mix")
        self.n_classes = n_classes
        self.shares: torch.Tensor | None = None  # (N, N): how much of each picture is in each, of the last batch

    def __call__(self, images: torch.Tensor, training: bool) -> torch.Tensor:
        """Mixes a batch while training.

        Args:
            images: (N, 3, H, W) of float, normalised.
            training: otherwise they stay as they are.

        Returns:
            The same shape.
        """
        self.shares = None
        if not training or len(images) < 2:
            return images
        # torchvision mixes labels with the pictures. Where each picture is a class of its own, that gives the shares.
        images, self.shares = self.build(num_classes=len(images))(
            images, torch.arange(len(images), device=images.device)
        )
        return images

    def mixed(self, loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The loss on mixed labels: of the batch that was mixed last.

        Args:
            loss: takes logits and labels, also as probabilities (N, C).

        Raises:
            UserError: it takes no probabilities.
        """
        weight = getattr(loss, "keywords", {}).get("weight", torch.empty(0))  # of the classes, where they have some
        try:
            logits = torch.zeros(2, self.n_classes, device=weight.device)
            loss(logits, torch.full_like(logits, 1 / self.n_classes))
        except (RuntimeError, IndexError, TypeError) as error:
            raise UserError("--mix needs a loss that takes probabilities, such as cross_entropy") from error

        def call(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            shares, self.shares = self.shares, None
            if shares is None:  # the batch was not mixed
                return loss(logits, labels)
            hot = labels if labels.ndim == 2 else nn.functional.one_hot(labels, self.n_classes)
            return loss(logits, shares.to(logits.dtype) @ hot.to(logits.dtype))

        return call
