"""MixUp and CutMix, by torchvision: each training image is mixed with another one of its batch."""

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
    """Loader of mixed batches: images (N, 3, H, W) of float from 0 to 255, and soft labels (N, C) of float."""

    def __init__(self, loader: DataLoader, transform: nn.Module, device: torch.device) -> None:
        self.loader = loader
        self.transform = transform
        self.device = device
        self.dataset = loader.dataset
        self.sampler = loader.sampler
        self.batch_size = loader.batch_size

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in self.loader:
            images = images.to(self.device, non_blocking=True).float()
            labels = labels.to(self.device, non_blocking=True)
            yield self.transform(images, labels)


def mix_batches(
    config: Config, loaders: DataLoaders, loss: Callable[..., torch.Tensor], device: torch.device
) -> DataLoaders:
    """Return loaders whose training batches are mixed as `--mixup` says.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix: Regularization Strategy
    to Train Strong Classifiers with Localizable Features", ICCV 2019.
    """
    if config.mixup == "none":
        return loaders
    if config.cached_views:
        raise UserError(
            f"--cached-views {config.cached_views}: --mixup {config.mixup} needs the images; leave it out"
        )
    transform = lookup(config.mixup, MIXES, "mixup")(num_classes=len(loaders.classes))
    try:
        logits = torch.zeros(2, len(loaders.classes), device=device)
        loss(logits, logits.softmax(dim=1))
    except (RuntimeError, IndexError, TypeError) as error:
        raise UserError("--mixup needs a loss that takes probabilities, such as cross_entropy") from error
    return replace(loaders, train=MixedLoader(loaders.train, transform, device))
