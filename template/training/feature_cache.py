"""Cache of the features of a frozen backbone: each image is computed once, and then only the head trains.

For training, some augmented views of each image are cached, for validation the image itself. An image is known by its
file, not by its split, so runs with another split, fold, seed, head or learning rate find its features.
"""

import atexit
import inspect
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from config import Config
from core.environment import local_rank, local_world_size, versions, world_size
from core.errors import UserError, format_error
from core.files import digest
from core.processes import barrier, broadcast_object
from core.progress import progress_bar
from core.rng import isolated_rng
from data import image_io
from data.image_dataset import image_sources
from data.loaders import TransformedDataset, make_loader
from data.splits import flatten_dataset, get_file_names, get_labels
from models import Classifier

PACKAGES = ("torch", "torchvision", "timm", "imaug", "opencv-python-headless", "numpy", "pillow")


class FeatureStore:
    """Folder with the features of images, in files of records (key, features).

    Each process adds files of its own, so neither a kill nor a concurrent run can damage what is there; an incomplete
    last record is ignored. Features are read when they are needed, so memory does not grow with them.
    """

    def __init__(self, folder: Path, n_features: int) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the cache {folder} cannot be created ({format_error(error)})") from error
        self.folder = folder
        self.record = np.dtype([("key", "S16"), ("features", np.float16, (n_features,))])
        self.load()

    def load(self) -> None:
        """Open all files, and index their keys by row, counted over all files."""
        self.files: list[np.ndarray] = []
        for path in sorted(self.folder.glob("*.records")):
            n_records = path.stat().st_size // self.record.itemsize
            if path.is_file() and n_records:
                self.files.append(np.memmap(path, self.record, "r", shape=(n_records,)))
        keys = [np.empty(0, "S16"), *(file["key"] for file in self.files)]
        self.keys, self.rows = np.unique(np.concatenate(keys), return_index=True)

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Return for each key whether its features are missing."""
        return ~np.isin(keys, self.keys)

    def read(self, keys: np.ndarray) -> torch.Tensor:
        """Return features (N, n_features) of float16 by their keys (N,)."""
        rows = self.rows[np.searchsorted(self.keys, keys)]
        features = np.empty((len(keys), *self.record["features"].shape), np.float16)
        start = 0
        for file in self.files:
            inside = (start <= rows) & (rows < start + len(file))
            features[inside] = file["features"][rows[inside] - start]
            start += len(file)
        return torch.from_numpy(features)

    def write(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Add a file with the keys (N,) and features (N, n_features) of each batch."""
        with open(self.folder / f"{uuid.uuid4().hex}.records", "wb") as file:
            for keys, features in batches:
                records = np.rec.fromarrays([keys, features], self.record)
                file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut could leave zeros as features


@dataclass(frozen=True)
class FeatureLoader:
    """Loader of cached features in the order and batches of a loader of images; of images once the backbone trains."""

    network: Classifier
    loader: DataLoader  # of images
    targets: torch.Tensor  # labels of the images
    store: FeatureStore
    seeds: list[list[int]]  # (images, views), from which the views are drawn
    keys: np.ndarray  # (images, views), by which features are stored
    bf16: bool  # whether features are computed in bfloat16

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches (features, labels): (N, n_features) of float16, and (N,) or (N, n_classes) of int64."""
        if not self.network.frozen:
            yield from self.loader
            return
        for batch in self.loader.batch_sampler:
            indices, seeds = np.array(batch).T
            yield self.features(indices, seeds), self.targets[indices]

    def features(self, indices: np.ndarray, seeds: np.ndarray) -> torch.Tensor:
        """Return the features (N, n_features) of float16 of some images, each seed choosing one of the views."""
        return self.store.read(self.keys[indices, seeds % self.keys.shape[1]])

    def compute_missing(self) -> None:
        """Compute the features that are not in the store; the processes of a machine divide the images."""
        missing = np.flatnonzero(self.store.missing(self.keys).any(axis=1))
        indices = missing[missing % local_world_size() == local_rank()]
        if len(indices):
            self.store.write(self.compute(indices))
        barrier()
        if len(missing):
            self.store.load()

    def compute(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield keys (N,) and features (N, n_features) of float16 of some images, in batches."""
        dataset, size = self.loader.dataset, self.loader.batch_size
        sampler = [(i, self.seeds[i]) for i in indices.tolist()]
        options = {"batch_size": size * world_size(), "num_workers": self.loader.num_workers, "sampler": sampler}
        images = make_loader(dataset.dataset, dataset.transform, dataset.classes, **options)
        self.network.eval()
        with progress_bar("features", total=len(indices)) as progress:
            for start, (views, targets) in zip(range(0, len(indices), size), images, strict=True):
                batch = indices[start : start + size]
                if not targets.equal(self.targets[batch]):
                    advice = "make dataset[i] return the same one, or leave out the feature cache with --cached-views 0"
                    raise UserError(f"an image of this dataset has another label each time it is read; {advice}")
                yield self.keys[batch].ravel(), self.forward(views.flatten(0, 1))
                progress.update(len(batch))

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> np.ndarray:
        """Return the features (N, n_features) of float16 of images (N, 3, H, W)."""
        device = self.network.normalize.mean.device
        features = []
        for batch in images.split(self.loader.batch_size):
            features.append(self.network.features(batch.to(device, non_blocking=True), self.bf16).half().cpu())
        features = torch.cat(features)
        if not features.isfinite().all():
            raise UserError("features of this network are not finite in float16; check its weights, or --freeze less")
        return features.numpy()


def cache_features(
    config: Config, network: Classifier, train: DataLoader, val: DataLoader, cache_dir: Path
) -> tuple[Iterable, Iterable]:
    """Return loaders of features for training and validation if the backbone is frozen, else those of images.

    Args:
        config: resolved.
        network: on its device.
        train, val: loaders of images.
        cache_dir: of the project.

    Raises:
        UserError: views are to be cached although the backbone trains; or the features cannot be cached.
    """
    if config.cached_views and not network.frozen:
        raise UserError(f"--cached-views {config.cached_views}: the backbone trains; leave it out")
    if network.frozen:
        val = cached_loader(network, val, cache_dir)
    if config.cached_views:
        train = cached_loader(network, train, cache_dir, config.cached_views, config.seed)
    return train, val


def cached_loader(
    network: Classifier, loader: DataLoader, cache_dir: Path, views: int = 0, seed: int = 0
) -> FeatureLoader:
    """Return a loader of features of augmented views, or with `views=0` of the images themselves in full precision."""
    dataset = loader.dataset.dataset
    bf16 = network.bf16 and views > 0
    sources = image_sources(dataset)
    if None in sources:  # a custom dataset: nobody knows whether its images change
        folder = cache_dir / "features" / f"run-{broadcast_object(uuid.uuid4().hex)}"
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        sources = [str(i) for i in range(len(sources))]
    else:
        device = network.normalize.mean.device.type
        folder = cache_dir / "features" / fingerprint(network, loader.dataset, device, bf16).hex()

    seeds: list[list[int]] = []
    keys: list[list[bytes]] = []
    for i, (source, name) in enumerate(zip(sources, get_file_names(dataset), strict=True)):
        view_seeds = [int.from_bytes(digest(seed, view, name)[:7]) for view in range(views)]
        seeds.append(view_seeds or [i])  # the seed that ShardedSequentialSampler gives
        keys.append([digest(source, one) for one in view_seeds] or [digest(source)])

    store = FeatureStore(folder, network.n_features)
    targets = torch.tensor(get_labels(dataset))
    features = FeatureLoader(network, loader, targets, store, seeds, np.array(keys, "S16"), bf16)
    features.compute_missing()
    return features


def fingerprint(network: Classifier, dataset: TransformedDataset, device: str, bf16: bool) -> bytes:
    """Return a hash of what features depend on besides the images: weights, code, transform, precision, libraries."""
    parts = [device, bf16, repr(network.backbone), versions(*PACKAGES)]
    for name, value in network.state_dict().items():
        if not name.startswith("head."):
            parts += [name, value.dtype, tuple(value.shape), value.cpu().numpy().tobytes()]

    objects = [*network.modules(), *(part for part, _ in flatten_dataset(dataset.dataset))]
    files = {inspect.getsourcefile(kind) for kind in set(map(type, objects))}
    parts += [Path(file).read_bytes() for file in sorted({*files, image_io.__file__})]

    noise = np.random.default_rng(0).integers(256, size=(12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((400, 300))
    for seed in range(8):
        with isolated_rng(seed):
            parts.append(dataset.transform(image).numpy().tobytes())
    parts.append(re.sub(" at 0x[0-9a-f]+", "", str(dataset.transform)))  # imgaug's text changes with its first use
    return digest(*parts)
