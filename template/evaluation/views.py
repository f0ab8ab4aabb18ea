"""Whether augmentation does what it should: every view of a picture different, across workers and epochs."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from data.loaders import EpochSampler, make_loader
from data.transformation import Transform
from evaluation.plots import class_names, image_grid, show_figure


def count_views(
    picture: Image.Image, transform: Transform, n: int = 32, epochs: int = 2, num_workers: int = 4
) -> tuple[int, int]:
    """How many views of one picture are different, drawn as in a training.

    Fewer than all of them mean that the pipeline draws its random numbers from a source that the workers share or that
    starts anew with each epoch, or that it has only few views to offer.

    Args:
        picture: PIL image in RGB.
        transform: picture → tensor.
        n: views in an epoch.
        epochs: of the same loader.
        num_workers: processes that draw them.

    Returns:
        The number of different views, and that of all.
    """
    sampler = EpochSampler(n, seed=0)
    loader = make_loader([(picture, 0)] * n, transform, [""], batch_size=1, num_workers=num_workers, sampler=sampler)
    views = [hashlib.sha256(view.numpy().tobytes()).digest() for _ in range(epochs) for view, _ in loader]
    return len(set(views)), len(views)


def show_views(
    dataset: Dataset,
    train_transform: Transform,
    val_transform: Transform,
    n: int = 4,
    views: int = 7,
    file: str | Path | None = None,
) -> None:
    """Shows pictures as they are, each beside augmented views of it.

    Args:
        dataset: items are (picture, label).
        train_transform, val_transform: with augmentation and without.
        n: how many pictures, from all over the data set.
        views: of each.
        file: where to draw them. By default in the notebook, or in `show_views.png` when called from a script.
    """
    n = min(n, len(dataset))
    chosen: Sequence = [dataset[i * len(dataset) // n] for i in range(n)]
    images, titles = [], []
    for (picture, _), name in zip(chosen, class_names(dataset, [label for _, label in chosen]), strict=True):
        images += [val_transform(picture), *(train_transform(picture) for _ in range(views))]
        titles += [name, *[""] * views]
    figure = image_grid(images, titles, columns=views + 1)
    show_figure(figure, file or "show_views.png", inline=file is None)
