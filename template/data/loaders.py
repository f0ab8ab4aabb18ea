"""Batches: a new augmented view of each image in each epoch, reproducible with the seed."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from core.environment import local_world_size, rank, world_size
from core.errors import UserError
from core.rng import isolated_rng
from data.image_dataset import read_item
from data.image_io import needed_side
from data.splits import DatasetSplits
from data.transformation import Transform
from data.transformation.ImgAugTransform import use_one_thread


@dataclass(frozen=True)
class DataLoaders:
    """Three loaders that unpack as `train_dl, val_dl, test_dl`.

    Batches are (images, labels): uint8 (N, 3, H, W) from 0 to 255, int64 (N,) or (N, n_classes).
    """

    train: DataLoader
    val: DataLoader
    test: DataLoader
    classes: list[str]

    def __iter__(self) -> Iterator[DataLoader]:
        return iter((self.train, self.val, self.test))


class TransformedDataset(Dataset):
    """A data set with a transform. Keys are an index, (index, seed) or (index, list of seeds)."""

    def __init__(self, dataset: Dataset, transform: Transform, classes: list[str]) -> None:
        self.dataset = dataset
        self.transform = transform
        self.classes = classes
        self.min_side = needed_side(transform)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int | list[int]]) -> tuple[torch.Tensor, int]:
        """Return the transformed image and its label; with a list of seeds, a view for each: (views, 3, H, W)."""
        index, seed = key if isinstance(key, tuple) else (key, None)
        seeds = seed if isinstance(seed, list) else [seed]
        with isolated_rng(seeds[0]):  # a custom data set may draw random numbers, too
            image, label = read_item(self.dataset, index, self.min_side)
        views = []
        for view_seed in seeds:
            with isolated_rng(view_seed):
                views.append(self.transform(image))
        return torch.stack(views) if isinstance(seed, list) else views[0], label


class ShardedSequentialSampler(Sampler):
    """Each index once, in order, with itself as seed: what a custom data set draws is the same in every epoch."""

    def __init__(self, n: int) -> None:
        self.indices = range(rank(), n, world_size())

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.indices, self.indices, strict=True)


class EpochSampler(Sampler):
    """A new order and new seeds of the views in each iteration, which is an epoch; the first one is 1.

    They are drawn in the main process, so that views do not depend on the workers. Several processes get equal shares
    of each batch; for this, a few images may come twice in an epoch. With `weights` (n,), images are drawn that often,
    relative to each other, instead of once an epoch.
    """

    def __init__(self, n: int, seed: int, weights: Sequence[float] | None = None) -> None:
        self.n = n
        self.seed = seed
        self.probabilities = None if weights is None else np.asarray(weights) / np.sum(weights)
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // world_size())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        if self.probabilities is None:
            order = rng.permutation(self.n)
        else:
            order = rng.choice(self.n, self.n, p=self.probabilities)
        seeds = rng.integers(2**63, size=self.n)
        keys = list(zip(order.tolist(), seeds.tolist(), strict=True))
        keys += keys[: len(self) * world_size() - self.n]
        return iter(keys[rank() :: world_size()])


def make_loaders(
    data: DatasetSplits,
    train_transform: Transform,
    val_transform: Transform,
    *,
    seed: int = 0,
    **options: Any,
) -> DataLoaders:
    """Return loaders of the three parts of a data set; for the options see `make_loader`."""
    sampler = EpochSampler(len(data.train), seed, data.image_weights)
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
    """Return a loader of a data set, in its order if the options hold no sampler.

    Args:
        batch_size: of all processes together; the last batch of an epoch may be smaller.
        num_workers: processes that read images (default: one per core, at most 8); 0 reads in this process.
        options: any other argument of torch's DataLoader.

    Raises:
        UserError: there are fewer items than processes.
    """
    if len(dataset) < world_size():
        raise UserError(f"{len(dataset)} images are too few for {world_size()} processes; start fewer")
    workers = default_workers(num_workers)
    options = {
        "sampler": ShardedSequentialSampler(len(dataset)),
        "batch_size": max(1, batch_size // world_size()),
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": use_one_thread,
        "generator": torch.Generator(),  # instead of torch's global one, which the network uses
        **options,
    }
    return DataLoader(TransformedDataset(dataset, transform, classes), **options)


def default_workers(num_workers: int | None) -> int:
    """Return the number of workers if given, else one for each core available to this process, at most 8."""
    if num_workers is not None:
        return num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // local_world_size()))
