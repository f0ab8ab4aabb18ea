"""For classes of very different sizes: the small ones count more in the loss, or are drawn more often."""

import logging
from dataclasses import replace

import numpy as np

from config import Config
from core.task import classes_of
from data.splits import DatasetSplits, get_labels

logger = logging.getLogger(__name__)


def class_weights(data: DatasetSplits) -> np.ndarray:
    """Return a weight for each class, see `Task.class_weights`: the smaller it is in the training set, the larger."""
    targets = get_labels(data.train)
    counts = np.zeros(len(data.classes))
    for label in targets:
        counts[classes_of(label)] += 1
    return data.task.class_weights(np.maximum(counts, 1), len(targets))


def image_weights(data: DatasetSplits) -> np.ndarray:
    """A weight for each training image: that of its rarest class, so that each class is drawn about as often.

    Returns:
        (N,) of float64; an image without a class weighs as much as the lightest.
    """
    weights = class_weights(data)
    return np.array(
        [max((weights[i] for i in classes_of(label)), default=weights.min()) for label in get_labels(data.train)]
    )


def balance(config: Config, data: DatasetSplits) -> DatasetSplits:
    """Return the data with the weights that `--balance` asks for; log what they do.

    Args:
        config: balance: "none", "weights" (of classes, in the loss) or "sampler" (of images, when drawing).
        data: its training set decides.
    """
    if config.balance == "none":
        return data
    weights = class_weights(data)
    order = weights.argsort()
    few, many = data.classes[order[-1]], data.classes[order[0]]
    what = (
        "counts {:.2g} times in the loss, {!r} {:.2g} times"
        if config.balance == "weights"
        else ("is drawn about {:.2g} times an epoch for each of its images, {!r} {:.2g} times")
    )
    logger.info("balance: %r %s", few, what.format(weights[order[-1]], many, weights[order[0]]))
    if config.balance == "weights":
        return replace(data, class_weights=weights)
    return replace(data, image_weights=image_weights(data))
