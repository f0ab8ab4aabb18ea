"""From data sets to batches: every view of a picture is different, and the same again for the same seed."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from core.errors import UserError
from core.processes import rank, world_size
from core.rng import isolated_rng
from data.image_dataset import read_item
from data.image_io import needed_sides
from data.splits import DatasetSplits
from data.transformation import Transform


@dataclass(frozen=True)
class DataLoaders:
    """Three loaders that unpack as `train_dl, val_dl, test_dl`.

    Batches are (images, labels): uint8 (N, 3, H, W) from 0 to 255, int64 (N,).
    """

    train: DataLoader
    val: DataLoader
    test: DataLoader
    classes: list[str]

    def __iter__(self) -> Iterator[DataLoader]:
        """Train, validation, test."""
        return iter((self.train, self.val, self.test))


class TransformedDataset(Dataset):
    """A data set seen through a transform. The key is an index, or an index with the seed or seeds of its view."""

    def __init__(self, dataset: Dataset, transform: Transform, classes: list[str]) -> None:
        self.dataset, self.transform, self.classes = dataset, transform, classes
        self.sides = needed_sides(transform)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int | list[int | None]]) -> tuple[torch.Tensor, int]:
        """Return a transformed image and its label; with a seed, its transform draws from that seed alone.

        With a list of seeds the image is read once, and there are as many views of it: (views, 3, H, W).
        """
        index, seed = key if isinstance(key, tuple) else (key, None)
        seeds = seed if isinstance(seed, list) else [seed]
        with isolated_rng(seeds[0]):  # a custom data set may draw too
            image, label = read_item(self.dataset, index, self.sides)
        views = []
        for one in seeds:
            with isolated_rng(one):
                views.append(self.transform(image))
        return (torch.stack(views) if isinstance(seed, list) else views[0]), label


class ShardedSequentialSampler(Sampler):
    """Sampler of each item once, in order; of several processes each gets its share.

    Each item has a fixed seed, its index: what a data set draws in validation is then the same in every epoch.
    """

    def __init__(self, n: int) -> None:
        """Take the number of items."""
        self.n = n

    def __len__(self) -> int:
        """Items in an iteration, for this process."""
        return len(range(rank(), self.n, world_size()))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield pairs of (index, seed), keys of `TransformedDataset`."""
        for index in range(rank(), self.n, world_size()):
            yield index, index


class EpochSampler(Sampler):
    """Each iteration is a new epoch: a new order, and for each picture the seed of a new view.

    Order and seeds are drawn in the main process and travel with the index, so neither the number of workers nor
    whether they are kept between epochs makes a difference.

    Attributes:
        epoch: number of the next iteration, from 1.
    """

    def __init__(self, n: int, seed: int, weights: Sequence[float] | None = None) -> None:
        """Starts with epoch 1.

        Of several processes each gets its share of every batch; to make the shares equal, a few pictures may be shown
        twice in an epoch.

        Args:
            n: pictures in the data set.
            seed: drives order and views.
            weights: how often each is drawn, relative to the others; each once an epoch by default.
        """
        self.n, self.seed = n, seed
        self.set_epoch(1)
        self.shares = None if weights is None else np.asarray(weights) / np.sum(weights)

    def set_epoch(self, epoch: int) -> None:
        """Continue from this epoch; each iteration that follows is the next one."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Pictures in an epoch, for this process."""
        return -(-self.n // world_size())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Return pairs of (index, seed of the view)."""
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        order = rng.permutation(self.n) if self.shares is None else rng.choice(self.n, self.n, p=self.shares)
        keys = list(zip(order.tolist(), rng.integers(2**63, size=self.n).tolist(), strict=True))
        keys += keys[: len(self) * world_size() - self.n]
        return iter(keys[rank() :: world_size()])


def make_loaders(
    data: DatasetSplits,
    train_transform: Transform,
    val_transform: Transform,
    *,
    seed: int = 0,
    weights: Sequence[float] | None = None,
    **options: Any,
) -> DataLoaders:
    """Loaders over the three parts of a data set.

    Args:
        data: pictures and labels.
        train_transform: for the training set, which comes in a new order and with new views each epoch.
        val_transform: for the other two, which come as they are.
        seed: drives order and views.
        weights: how often each training picture is drawn, relative to the others; each once an epoch by default.
        options: what `make_loader` takes.
    """
    sampler = EpochSampler(len(data.train), seed, weights)
    return DataLoaders(
        make_loader(data.train, train_transform, data.classes, sampler=sampler, **options),
        make_loader(data.val, val_transform, data.classes, **options),
        make_loader(data.test, val_transform, data.classes, **options),
        data.classes,
    )


def make_loader(
    dataset: Dataset,
    transform: Transform,
    classes: list[str],
    *,
    batch_size: int = 32,
    num_workers: int | None = None,
    **options: Any,
) -> DataLoader:
    """A loader over one data set, in its order unless there is a sampler among the options.

    Of several processes each gets its share: every item is in exactly one of them.

    Args:
        dataset: pictures and labels.
        transform: picture → tensor.
        classes: names of the classes, by label.
        batch_size: images in a batch, of all processes together; the last one of an epoch may hold fewer.
        num_workers: processes that read pictures; by default one for each core, 8 at most, 0 reads in this process.
        options: anything else that torch's DataLoader takes.

    Raises:
        UserError: there are fewer items than processes.
    """
    num_workers = default_workers(num_workers)
    if len(dataset) < world_size():
        raise UserError(f"{len(dataset)} images cannot be shared by {world_size()} processes; start fewer")
    options = {
        "sampler": ShardedSequentialSampler(len(dataset)),
        "batch_size": max(1, batch_size // world_size()),
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": one_thread,
        "generator": torch.Generator(),  # leaves torch's own alone
        **options,
    }
    return DataLoader(TransformedDataset(dataset, transform, classes), **options)


def one_thread(_: int) -> None:
    """A worker of torch keeps to one thread; OpenCV has to be told, or it is in the way of the network."""
    import cv2

    cv2.setNumThreads(0)


def default_workers(num_workers: int | None) -> int:
    """The number that was asked for, else one for each core that this process may use, 8 at most."""
    if num_workers is not None:
        return num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
