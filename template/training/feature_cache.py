"""Cache of a frozen backbone's features: each image is computed once, and then only the head trains.

For training a few augmented views of each image are cached, for validation the image itself. They are known by image,
not by split, so that later runs find them, whatever split, fold, seed of the split, head or learning rate they use.
`--cached-views 0` computes a new view of each training image in each epoch instead.
"""

import atexit
import inspect
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from config import Config
from core.environment import versions
from core.errors import UserError
from core.files import digest
from core.processes import barrier, broadcast_object, turns, world_size
from core.progress import progress_bar
from core.rng import isolated_rng
from data import image_io as images
from data.image_dataset import image_sources
from data.loaders import TransformedDataset, make_loader
from data.splits import flatten_dataset, get_file_names, get_labels
from models import Classifier

VIEWS = 2  # by default; more gain nothing that can be measured, see the README
PACKAGES = ("torch", "torchvision", "timm", "imaug", "opencv-python-headless", "numpy", "pillow")

logger = logging.getLogger(__name__)


def choose_views(config: Config, network: Classifier) -> int:
    """Return the number of cached views of each training image; 0: none are cached.

    Raises:
        UserError: views are to be cached although the backbone trains, or images are mixed.
    """
    reason = None
    if not network.frozen:
        reason = "the backbone trains"
    elif config.mixup != "none":
        reason = f"--mixup {config.mixup} needs the images themselves"
    if reason and config.cached_views:
        raise UserError(f"--cached-views {config.cached_views}: {reason}; leave it out")
    if config.cached_views is not None:
        return config.cached_views
    if reason:
        return 0
    return 1 if config.augmentation == "none" else min(VIEWS, config.epochs)


class FeatureLoader:
    """A loader that gives cached features instead of images, in the same order and the same batches.

    From the epoch on in which some of the backbone trains, it gives images.
    """

    def __init__(
        self, loader: DataLoader, network: Classifier, features: "CachedFeatures", targets: torch.Tensor
    ) -> None:
        """Replace a loader.

        Args:
            loader: of images.
            network: that computed the features.
            features: of all images of the loader.
            targets: their labels, (images,) or (images, C) of int64.
        """
        self.loader, self.network, self.features, self.targets = loader, network, features, targets

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches (features, labels): float16 (N, n_features), and int64 (N,) or (N, C)."""
        if not self.network.frozen:
            yield from self.loader
            return
        for batch in self.loader.batch_sampler:
            indices, seeds = np.array(batch).T
            yield self.features(indices, seeds), self.targets[indices]


class CachedFeatures:
    """Features of some images, read from a folder of the cache when asked for: memory does not grow with them.

    The folder holds files of records, each a key and its features. Records are only appended, by each process to a file
    of its own, so that neither a kill nor a concurrent run can spoil what is there. A torn last record is ignored.

    Attributes:
        missing: indices of the images of which not all views are in the cache.
    """

    def __init__(self, store: Path, keys: np.ndarray, n_features: int) -> None:
        """Look up each key.

        Args:
            store: the folder.
            keys: (images, views) of 16 bytes.
            n_features: width of the features.
        """
        record = record_type(n_features)
        self.files = []
        for file in sorted(store.glob("*.records")):
            n_records = file.stat().st_size // record.itemsize
            if n_records:
                self.files.append(np.memmap(file, record, "r", shape=(n_records,)))
        stored = np.concatenate([np.zeros(1, "S16"), *(file["key"] for file in self.files)])  # never empty
        starts = np.cumsum([1, *map(len, self.files)])
        unique, first = np.unique(stored, return_index=True)
        position = np.searchsorted(unique, keys).clip(max=len(unique) - 1)
        self.missing = np.flatnonzero((unique[position] != keys).any(axis=1))
        self.file = np.searchsorted(starts, first[position], "right") - 1
        self.row = first[position] - starts[self.file]

    def __call__(self, indices: np.ndarray, views: np.ndarray) -> torch.Tensor:
        """Return the features of some images.

        Args:
            indices: (N,), numbers of images.
            views: (N,), which view of each, modulo the number of cached views.

        Returns:
            (N, n_features) of float16.
        """
        views = views % self.file.shape[1]
        files, rows = self.file[indices, views], self.row[indices, views]
        features = np.empty((len(indices), *self.files[0].dtype["features"].shape), np.float16)
        for number in np.unique(files):
            chosen = files == number
            features[chosen] = self.files[number]["features"][rows[chosen]]
        return torch.from_numpy(features)


def record_type(n_features: int) -> np.dtype:
    """Return the layout of a record."""
    return np.dtype([("key", "S16"), ("features", np.float16, (n_features,))])


def cache_features(
    config: Config, network: Classifier, train: DataLoader, val: DataLoader, cache_dir: Path
) -> tuple[Iterable, Iterable]:
    """Return what the network trains on and validates on: features where its backbone is frozen, else images.

    Args:
        config: views, seed.
        network: on its device.
        train, val: loaders of images.
        cache_dir: the features are in `features/` below it.
    """
    if network.frozen:
        val = cached_loader(network, val, cache_dir)
    if config.cached_views:
        train = cached_loader(network, train, cache_dir, config.cached_views, config.seed)
    return train, val


def cached_loader(
    network: Classifier, loader: DataLoader, cache_dir: Path, views: int = 0, seed: int = 0
) -> FeatureLoader:
    """Compute the features of a loader's images that are not in the cache yet, with a progress bar.

    The features of a custom data set are computed in each run: what it makes of its files may change although the files
    do not. Several processes share the work.

    Args:
        network: frozen, on its device.
        loader: of images.
        cache_dir: the features are in `features/` below it.
        views: number of augmented views of each image, computed at the precision of the network. 0: the image without
            augmentation, in float32, as the final scores are computed.
        seed: drives the views.

    Returns:
        What takes the place of the loader in training or validation.

    Raises:
        UserError: features are too large for float16.
    """
    dataset, device = loader.dataset, network.normalize.mean.device
    bf16 = network.bf16 and views > 0
    names, sources = get_file_names(dataset.dataset), image_sources(dataset.dataset)
    if None in sources:
        store = cache_dir / "features" / broadcast_object(f"run-{uuid.uuid4().hex}")
        atexit.register(shutil.rmtree, store, ignore_errors=True)
        sources = list(map(str, range(len(dataset))))
    else:
        store = cache_dir / "features" / fingerprint(network, dataset, device.type, bf16).hex()
    store.mkdir(parents=True, exist_ok=True)

    if views:
        seeds = [[int.from_bytes(digest(seed, view, name)[:7]) for view in range(views)] for name in names]
        keys = [[digest(source, one) for one in row] for source, row in zip(sources, seeds, strict=True)]
    else:
        seeds = [[i] for i in range(len(names))]  # as `ShardedSequentialSampler` gives them
        keys = [[digest(source)] for source in sources]
    keys = np.array(keys, "S16")
    targets = torch.tensor(get_labels(dataset.dataset))
    features = CachedFeatures(store, keys, network.n_features)
    for number, count in turns():
        mine = features.missing[number::count]
        if len(mine):
            requests = [(i, seeds[i]) for i in mine.tolist()]
            compute_features(network, bf16, loader, requests, targets[mine], keys[mine], store)
        barrier()
        if len(features.missing):
            features = CachedFeatures(store, keys, network.n_features)
    return FeatureLoader(loader, network, features, targets)


def compute_features(
    network: Classifier,
    bf16: bool,
    loader: DataLoader,
    requests: list[tuple[int, list[int]]],
    targets: torch.Tensor,
    keys: np.ndarray,
    store: Path,
) -> None:
    """Add a file of features to the store.

    Args:
        network: frozen, on its device.
        bf16: whether to compute in bfloat16.
        loader: of these images.
        requests: index of an image, and the seeds of all its views.
        targets: (images,) or (images, C), their labels.
        keys: (images, views), by which they are found again.
        store: the folder.

    Raises:
        UserError: features are too large for float16, or an image comes with another label than before.
    """
    view, device, size = loader.dataset, network.normalize.mean.device, loader.batch_size
    images = make_loader(
        view.dataset,
        view.transform,
        view.classes,
        sampler=requests,
        batch_size=size * world_size(),
        num_workers=loader.num_workers,
    )
    record, n_views = record_type(network.n_features), keys.shape[1]
    what = f"features of {n_views} views" if n_views > 1 else "features"
    network.eval()
    with (
        open(store / f"{uuid.uuid4().hex}.records", "ab") as file,
        progress_bar(what, total=len(requests)) as progress,
    ):
        for start, (batch, found) in zip(range(0, len(keys), size), images, strict=True):
            if not found.equal(targets[start : start + size]):
                raise UserError(
                    "an image of this data set has another label each time it is read; make dataset[i] return the same "
                    "label each time, or leave out the cache of features with --cached-views 0"
                )
            parts = batch.flatten(0, 1).split(size)
            with torch.no_grad():
                computed = [network.features(part.to(device, non_blocking=True), bf16).half().cpu() for part in parts]
            features = torch.cat(computed).numpy()
            if not np.isfinite(features).all():
                raise UserError("the features of this network are too large for the cache; freeze less, with --freeze")
            records = np.empty(len(features), record)
            records["key"] = keys[start : start + size].ravel()
            records["features"] = features
            file.write(records.tobytes())
            progress.update(len(batch))
        file.flush()
        os.fsync(file.fileno())


def fingerprint(network: Classifier, view: TransformedDataset, device: str, bf16: bool) -> bytes:
    """Return a digest of everything that features depend on, except for the image files.

    That is: the weights; the code of the network, of the data set and of reading images; what the transform does to an
    image; precision, type of device and versions of the libraries.
    """
    found: list[Any] = [device, bf16, repr(network.backbone), versions(*PACKAGES)]
    for part in network.normalize, network.backbone:
        for name, value in part.state_dict().items():
            found += [name, value.dtype, tuple(value.shape), value.cpu().contiguous().numpy().tobytes()]
    found += source_code([*network.modules(), *(dataset for dataset, _ in flatten_dataset(view.dataset))])
    found.append(Path(images.__file__).read_bytes())

    noise = np.random.default_rng(0).integers(256, size=(12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((400, 300))
    for seed in range(8):
        with isolated_rng(seed):
            found.append(view.transform(image).numpy().tobytes())
    found.append(re.sub(" at 0x[0-9a-f]+", "", str(view.transform)))  # imgaug's text is another before its first use
    return digest(*found)


def source_code(objects: Iterable[object]) -> list[bytes]:
    """Return the files in which the classes of some objects are defined, each once."""
    files = {inspect.getsourcefile(kind) for kind in {type(one) for one in objects}}
    return [Path(file).read_bytes() for file in sorted(files)]
