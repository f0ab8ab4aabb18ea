"""Weights for classes of different sizes: of the classes in the loss, or of the images in the sampler."""

import logging
from dataclasses import replace

import numpy as np

from config import Config
from core.task import classes_of
from data.splits import DatasetSplits, get_labels

logger = logging.getLogger(__name__)


def balance(config: Config, data: DatasetSplits) -> DatasetSplits:
    """Return the data with the weights that `--balance` asks for, from the class counts of the training set.

    "weights" are of the classes, in the loss; with "sampler" an image is drawn as often as its rarest class needs.
    """
    if config.balance == "none":
        return data
    targets = [classes_of(label) for label in get_labels(data.train)]
    counts = np.bincount(np.concatenate(targets).astype(int), minlength=len(data.classes))
    weights = data.task.class_weights(counts.clip(min=1), len(targets))
    for i in weights.argmax(), weights.argmin():
        logger.info("balance: the class %r has a weight of %.2g", data.classes[i], weights[i])
    if config.balance == "weights":
        return replace(data, class_weights=weights)
    image_weights = [weights[classes].max(initial=weights.min()) for classes in targets]
    return replace(data, image_weights=image_weights)
