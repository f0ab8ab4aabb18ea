"""Options that were not given get their values here, once."""

from dataclasses import replace

from config import Config
from data import DatasetSplits
from models import Classifier, native_image_size
from training.feature_cache import choose_views
from training.optimizers import default_lr


def resolve(config: Config, data: DatasetSplits, network: Classifier) -> Config:
    """Give each option that is still None the value that suits the data and the network.

    Args:
        config: as typed, or as the resumed run has it.
        data: its size, its labels and what it suggests.
        network: as it will be trained.

    Raises:
        UserError: views are to be cached that cannot be.
    """
    config = replace(
        config,
        weights=config.weights or network.weights,
        freeze=config.freeze if config.freeze is not None else "all" if network.frozen else "none",
        augmentation=config.augmentation or data.augmentation,
        loss=config.loss or data.task.default_loss,
    )
    size, fixed = native_image_size(config.model)
    # Features that were learned at one size are worth less at another; from scratch, small images are quicker.
    as_trained = size and (fixed or config.weights != "none" or data.image_size == 224)
    return replace(
        config,
        image_size=config.image_size or (size if as_trained else data.image_size),
        lr=config.lr or default_lr(config, network, len(data.train)),
        cached_views=choose_views(config, network),
    )
