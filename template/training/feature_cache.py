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
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from config import Config
from core.environment import local_rank, local_world_size, versions
from core.errors import UserError, format_error
from core.files import digest
from core.processes import barrier, broadcast_object
from core.progress import progress_bar
from core.rng import isolated_rng
from data import image_io
from data.image_dataset import image_sources
from data.loaders import TransformedDataset
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
            raise UserError(
                f"the cache {folder} cannot be made ({format_error(error)}); delete it"
            ) from error
        self.folder = folder
        self.record = np.dtype([("key", "S16"), ("features", np.float16, (n_features,))])
        self.load()

    def load(self) -> None:
        """Open all files, and index their keys by row, counted over all files."""
        self.files: list[np.ndarray] = []
        for path in sorted(self.folder.glob("*.records")):
            n_records = path.stat().st_size // self.record.itemsize
            if path.is_file() and n_records:
                self.files.append(np.memmap(path, self.record, "r", shape=n_records))
        keys = [np.empty(0, "S16"), *(file["key"] for file in self.files)]
        self.keys, self.rows = np.unique(np.concatenate(keys), return_index=True)

    def read(self, keys: np.ndarray) -> torch.Tensor:
        """Return features (N, n_features) of float16 by their keys (N,)."""
        rows = self.rows[np.searchsorted(self.keys, keys)]
        records = np.empty(len(keys), self.record)
        start = 0
        for file in self.files:
            inside = (start <= rows) & (rows < start + len(file))
            records[inside] = file[rows[inside] - start]
            start += len(file)
        return torch.tensor(records["features"])

    def write(self, batches: Iterable[tuple[np.ndarray, torch.Tensor]]) -> None:
        """Add a file with the keys (N,) and features (N, n_features) of each batch."""
        with open(self.folder / f"{uuid.uuid4().hex}.records", "wb") as file:
            for keys, features in batches:
                records = np.empty(len(keys), self.record)
                records["key"] = keys
                records["features"] = features.numpy()
                file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut could leave zeros as features


class FeatureLoader:
    """Loader of cached features in the order and batches of a loader of images; of images once the backbone trains.

    With `views=0`, the features are those of the images themselves, in full precision.
    """

    def __init__(
        self, network: Classifier, loader: DataLoader, cache_dir: Path, views: int = 0, seed: int = 0
    ) -> None:
        self.network = network
        self.loader = loader
        self.bf16 = network.bf16 and views > 0
        self.device = network.normalize.mean.device
        dataset = loader.dataset.dataset
        self.targets = torch.tensor(get_labels(dataset))
        sources = image_sources(dataset)
        if None in sources:  # a custom dataset: nobody knows whether its images change
            name = f"run-{broadcast_object(uuid.uuid4().hex)}"
            atexit.register(shutil.rmtree, cache_dir / "features" / name, ignore_errors=True)
            sources = [str(i) for i in range(len(sources))]
        else:
            name = fingerprint(network, loader.dataset, self.device.type, self.bf16).hex()
        self.store = FeatureStore(cache_dir / "features" / name, network.n_features)
        self.seeds: list[list[int]] = []  # (images, views), from which the views are drawn
        keys: list[list[bytes]] = []
        for i, (source, file) in enumerate(zip(sources, get_file_names(dataset), strict=True)):
            if views:
                seeds = [int.from_bytes(digest(seed, view, file)[:7]) for view in range(views)]
                keys.append([digest(source, view_seed) for view_seed in seeds])
            else:
                seeds = [i]  # the seed that ShardedSequentialSampler gives
                keys.append([digest(source)])
            self.seeds.append(seeds)
        self.keys = np.array(keys, "S16")  # (images, views), by which features are stored
        self.compute_missing()

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
        cached = np.isin(self.keys, self.store.keys).all(axis=1)
        missing = np.flatnonzero(~cached)
        indices = missing[missing % local_world_size() == local_rank()]
        if len(indices):
            self.store.write(self.compute(indices))
        barrier()
        if len(missing):
            self.store.load()

    @torch.no_grad()
    def compute(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield keys (N,) and features (N, n_features) of float16 of some images, in batches."""
        loader = DataLoader(
            self.loader.dataset,
            batch_size=max(1, self.loader.batch_size // self.keys.shape[1]),
            sampler=[(i, self.seeds[i]) for i in indices.tolist()],
            num_workers=self.loader.num_workers,
            pin_memory=self.loader.pin_memory,
            worker_init_fn=self.loader.worker_init_fn,
            generator=torch.Generator(),  # instead of torch's global one, which the network uses
        )
        self.network.eval()
        with progress_bar("features", total=len(indices)) as progress:
            start = 0
            for images, targets in loader:
                batch = indices[start : start + len(images)]
                start += len(images)
                if not targets.equal(self.targets[batch]):
                    advice = "make dataset[i] return the same one, or leave out the feature cache with --cached-views 0"
                    raise UserError(
                        f"an image of this dataset has another label each time it is read; {advice}"
                    )
                images = images.flatten(0, 1).to(self.device)  # (images, views, 3, H, W) → (N, 3, H, W)
                features = self.network.features(images, self.bf16).half().cpu()
                if not features.isfinite().all():
                    raise UserError(
                        "the features are not finite in float16; check the weights, or --freeze less"
                    )
                yield self.keys[batch].ravel(), features
                progress.update(len(batch))


def cache_features(
    config: Config, network: Classifier, train: DataLoader, val: DataLoader, cache_dir: Path
) -> tuple[Iterable, Iterable]:
    """Return loaders of features for training and validation if the backbone is frozen, else those of images.

    Raises:
        UserError: views are to be cached although the backbone trains; or the features cannot be cached.
    """
    if config.cached_views and not network.frozen:
        raise UserError(f"--cached-views {config.cached_views}: the backbone trains; leave it out")
    if network.frozen:
        val = FeatureLoader(network, val, cache_dir)
    if config.cached_views:
        train = FeatureLoader(network, train, cache_dir, config.cached_views, config.seed)
    return train, val


def fingerprint(network: Classifier, dataset: TransformedDataset, device: str, bf16: bool) -> bytes:
    """Return a hash of what features depend on besides the images: weights, code, transform, precision, libraries."""
    parts = [device, bf16, repr(network.backbone), versions(*PACKAGES)]
    for name, value in network.state_dict().items():
        if not name.startswith("head."):
            parts += [name, value.dtype, tuple(value.shape), value.cpu().numpy().tobytes()]

    objects = [*network.modules(), *(part for part, _ in flatten_dataset(dataset.dataset))]
    files = {inspect.getsourcefile(type(thing)) for thing in objects}
    files.add(image_io.__file__)
    parts += [Path(file).read_bytes() for file in sorted(files)]

    noise = np.random.default_rng(0).integers(256, size=(12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((400, 300))
    for seed in range(8):
        with isolated_rng(seed):
            parts.append(dataset.transform(image).numpy().tobytes())
    # imgaug's text changes with its first use
    parts.append(re.sub(" at 0x[0-9a-f]+", "", str(dataset.transform)))
    return digest(*parts)
