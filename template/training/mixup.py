"""MixUp and CutMix, by torchvision: each image of a training batch is mixed with its neighbour."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from config import Config
from core.errors import UserError, lookup
from data import DataLoaders

MIXES: dict[str, Callable[..., nn.Module]] = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


class MixedLoader:
    """Loader of mixed batches: float images (N, 3, H, W) from 0 to 255, and soft labels (N, C) of float."""

    def __init__(self, loader: DataLoader, transform: nn.Module, device: torch.device) -> None:
        """Wrap a loader.

        Args:
            loader: of images and labels, in random order.
            transform: mixes a batch.
            device: where it does so.
        """
        self.loader, self.transform, self.device = loader, transform, device
        self.dataset, self.sampler, self.batch_size = loader.dataset, loader.sampler, loader.batch_size

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield mixed batches."""
        for images, labels in self.loader:
            images = images.to(self.device, non_blocking=True).float()
            labels = labels.to(self.device, non_blocking=True)
            yield self.transform(images, labels)


def mix_batches(
    config: Config, loaders: DataLoaders, loss: Callable[..., torch.Tensor], device: torch.device
) -> DataLoaders:
    """Return loaders of which the one for training does what `--mixup` asks for.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, and Yun et al., "CutMix: Regularization
    Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019.

    Args:
        config: mixup: "none", "mixup" or "cutmix".
        loaders: of images and labels.
        loss: will be computed on logits and soft labels, both (N, C) of float.
        device: to train on.

    Raises:
        UserError: there is no such way to mix, or the loss takes no soft labels.
    """
    if config.mixup == "none":
        return loaders
    build = lookup(config.mixup, MIXES, "way to mix")
    n_classes = len(loaders.classes)
    try:
        logits = torch.zeros(2, n_classes, device=device)
        loss(logits, torch.full_like(logits, 1 / n_classes))
    except (RuntimeError, IndexError, TypeError) as error:
        raise UserError("--mixup needs a loss that takes probabilities, such as cross_entropy") from error
    return replace(loaders, train=MixedLoader(loaders.train, build(num_classes=n_classes), device))
