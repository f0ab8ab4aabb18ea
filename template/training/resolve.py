"""Defaults of options that depend on the data and the network."""

from dataclasses import replace

from config import Config
from data import DatasetSplits
from models import Classifier, native_image_size
from training.optimizers import default_lr


def resolve(config: Config, data: DatasetSplits, network: Classifier) -> Config:
    """Return the options with a value for each that has a default; a resumed run has them already."""
    config = replace(
        config,
        weights=config.weights or network.weights,
        augmentation=config.augmentation or data.augmentation,
        loss=config.loss or data.task.default_loss,
        patience=config.patience or max(1, config.epochs // 2),
    )
    if config.freeze is None:
        config = replace(config, freeze="all" if network.frozen else "none")
    if config.cached_views is None:
        config = replace(config, cached_views=default_views(config, network))
    return replace(
        config,
        image_size=config.image_size or default_image_size(config, data),
        lr=config.lr or default_lr(config, network, len(data.train)),
    )


def default_image_size(config: Config, data: DatasetSplits) -> int:
    """Return the size that the weights were trained at, if any; from scratch, small images are faster."""
    size, fixed = native_image_size(config.model)
    if size and (fixed or config.weights != "none" or data.image_size == 224):
        return size
    return data.image_size


def default_views(config: Config, network: Classifier) -> int:
    """Return how many augmented views of each training image are cached; more than 2 gain nothing measurable."""
    needs_images = not network.frozen
    needs_images = needs_images or config.mixup != "none"
    if needs_images:
        return 0
    return 1 if config.augmentation == "none" else min(2, config.epochs)
