"""What a frozen backbone makes of a picture never changes: it is computed once, and then only the head trains.

Of each training picture a few augmented views are kept, of each for validation the picture itself. They lie in the
cache and serve every later run, as long as nothing has changed that they depend on. `--views fresh` computes a new view
of each training picture in each epoch instead.
"""

import atexit
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from config import Config
from data.looks import digest, sources_of
from data.splits import file_names, labels
from data.transformation import Transform
from distributed import from_first, turns, wait
from models import Classifier
from utils import UserError, progress_bar, seeded, versions

VIEWS = 2  # by default; more gain nothing that can be measured, see the README

logger = logging.getLogger(__name__)


def choose_views(config: Config, network: Classifier) -> Config:
    """Fills in how many views of a picture are kept, where it was not given.

    Raises:
        UserError: some are asked for where the backbone trains, or where pictures are mixed.
    """
    views, reason = config.views, None
    if not network.frozen:
        reason = "the backbone trains"
    elif config.mix != "none":
        reason = f"--mix {config.mix} needs the pictures themselves"
    if reason and views not in (None, "fresh"):
        raise UserError(f"--views {views}: {reason}; leave it out")
    if views is None:
        views = "fresh" if reason else 1 if config.augmentation == "none" else min(VIEWS, config.epochs)
    return replace(config, views=views)


class FeatureLoader:
    """Gives features in place of the pictures of a loader, in the same order and the same batches.

    From where some of the backbone trains, it gives the pictures.
    """

    def __init__(self, pictures: DataLoader, network: Classifier, features: "Features") -> None:
        """Puts together what belongs together.

        Args:
            pictures: the loader of pictures.
            network: whose features they are.
            features: of each picture.
        """
        self.pictures, self.network, self.features = pictures, network, features
        self.labels = torch.tensor(labels(pictures.dataset.dataset))
        self.sampler = pictures.sampler

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.pictures)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches (features, labels), float16 (N, n_features) and int64 (N,) or (N, C); of several views any one."""
        if not self.network.frozen:
            yield from self.pictures
            return
        for keys in self.pictures.batch_sampler:
            indices, seeds = np.array([key if isinstance(key, tuple) else (key, 0) for key in keys]).T
            yield self.features(indices, seeds), self.labels[indices]


class Features:
    """Features of pictures, read from the files of a folder when asked for: memory does not grow with them.

    Each file `<any name>.<n_features>` holds records of a key and its features. Records are only ever added, each
    process to files of its own, so that neither a kill nor another training can spoil what is there.
    """

    def __init__(self, store: Path, keys: np.ndarray) -> None:
        """Finds each key.

        Args:
            store: the folder.
            keys: (pictures, views) of bytes.
        """
        self.files = [
            np.memmap(file, record(int(file.suffix[1:])), "r", shape=(n,))
            for file in sorted(store.glob("*.*"))
            if (n := file.stat().st_size // record(int(file.suffix[1:])).itemsize)
        ]
        there = np.concatenate([file["key"] for file in self.files]) if self.files else np.array([b""], "S16")
        begins = np.cumsum([0] + [len(file) for file in self.files])
        order = there.argsort()
        at = order[np.searchsorted(there, keys, sorter=order).clip(max=len(there) - 1)]
        self.missing = np.flatnonzero((there[at] != keys).any(axis=1))
        self.file = np.searchsorted(begins, at, "right") - 1
        self.row = at - begins[self.file]

    def __call__(self, indices: np.ndarray, views: np.ndarray) -> torch.Tensor:
        """Features of some pictures.

        Args:
            indices: (N,), which pictures.
            views: (N,), which view of each, modulo their number.

        Returns:
            (N, n_features) of float16.
        """
        views = views % self.file.shape[1]
        files, rows = self.file[indices, views], self.row[indices, views]
        features = np.empty((len(indices), *self.files[0].dtype["features"].shape), np.float16)
        for i in np.unique(files):
            features[files == i] = self.files[i]["features"][rows[files == i]]
        return torch.from_numpy(features)


def record(n_features: int) -> np.dtype:
    """How features lie in a file."""
    return np.dtype([("key", "S16"), ("features", np.float16, (n_features,))])


def keep_features(
    network: Classifier, pictures: DataLoader, folder: Path | None, cache_dir: Path, views: int = 0, seed: int = 0
) -> FeatureLoader:
    """Computes what is not in the cache yet, with a progress bar; several processes share the work.

    Args:
        network: frozen, on its device.
        pictures: the loader of pictures.
        folder: of the data set, see `Data`.
        cache_dir: `features/` below it keeps them.
        views: of each picture, at the precision of the network. 0: the picture as it is, in float32.
        seed: drives the views.

    Returns:
        What takes the place of the loader in the training.

    Raises:
        UserError: features are too large for float16.
    """
    view, device = pictures.dataset, network.normalize.mean.device
    names, sources = file_names(view.dataset), sources_of(view.dataset, folder)
    bf16 = network.bf16 and views > 0  # figures that decide what is best are computed as exactly as the final ones
    origin = fingerprint(network, view.transform, device.type, bf16)
    if None in sources:  # what such a data set makes of its files may change although they do not
        origin = digest(origin, from_first(uuid.uuid4().hex))
    store = cache_dir / "features" / origin.hex()
    store.mkdir(parents=True, exist_ok=True)
    if None in sources:
        atexit.register(shutil.rmtree, store, ignore_errors=True)
    seeds = [[int.from_bytes(digest(seed, i, name)[:7]) for i in range(views)] if views else [None] for name in names]
    keys = np.array([[digest(source, one) for one in row] for source, row in zip(sources, seeds, strict=True)], "S16")
    features = Features(store, keys)
    for number, count in turns():
        mine = features.missing[number::count]
        if len(mine):
            compute(network, bf16, pictures, [(i, seeds[i]) for i in mine.tolist()], keys[mine], store)
        wait()
        features = Features(store, keys)
    return FeatureLoader(pictures, network, features)


def compute(
    network: Classifier,
    bf16: bool,
    pictures: DataLoader,
    asked: list[tuple[int, list[int | None]]],
    keys: np.ndarray,
    store: Path,
) -> None:
    """Adds a file of features to the store.

    Args:
        network: frozen, on its device.
        bf16: whether to compute in bfloat16.
        pictures: their loader.
        asked: indices of pictures, and seeds of all views of each.
        keys: (pictures, views), under which they are kept.
        store: the folder.
    """
    n_views = keys.shape[1]
    what = f"features of {n_views} views" if n_views > 1 else "features"
    bar = progress_bar(what, total=len(asked))
    before, network.bf16, pictures.sampler.asked = network.bf16, bf16, asked
    device, file, size = network.normalize.mean.device, None, pictures.batch_size
    network.eval()
    try:
        for some, (images, _) in zip(np.split(keys, range(size, len(keys), size)), pictures, strict=True):
            batches = images.flatten(0, 1).split(size)
            with torch.no_grad():
                found = [network.features(batch.to(device, non_blocking=True)).half().cpu() for batch in batches]
            features = torch.cat(found).numpy()
            if not np.isfinite(features).all():
                raise UserError(
                    "the features of this network are too large to be kept; freeze less of it, with --freeze"
                )
            file = file or open(store / f"{uuid.uuid4().hex}.{features.shape[1]}", "ab")  # noqa: SIM115
            records = np.empty(len(features), record(features.shape[1]))
            records["key"], records["features"] = some.ravel(), features
            file.write(records.tobytes())
            bar.update(len(images))
    finally:
        network.bf16, pictures.sampler.asked = before, None
        bar.close()
        if file:
            file.flush()
            os.fsync(file.fileno())
            file.close()


def fingerprint(network: Classifier, transform: Transform, device: str, bf16: bool) -> bytes:
    """What changes when anything does that features depend on, but for the pictures.

    That is: the weights; the code in `data/` and `models/`; what the transform does to a picture; precision, kind of
    device and versions of libraries.
    """
    found: list[Any] = [device, bf16, re.sub(" at 0x[0-9a-f]+", "", str(transform))]
    for part in network.normalize, network.backbone:
        for name, value in part.state_dict().items():
            found += [name, value.dtype, tuple(value.shape), value.cpu().contiguous().numpy().tobytes()]
    here = Path(__file__).resolve().parent
    found += [file.read_bytes() for name in ("data", "models") for file in sorted((here / name).rglob("*.py"))]
    found.append(versions("torch", "torchvision", "timm", "imaug", "opencv-python-headless", "numpy", "pillow"))
    noise = np.random.default_rng(0).integers(256, size=(12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((400, 300))
    for seed in range(8):
        with seeded(seed):
            found.append(transform(picture).numpy().tobytes())
    return digest(*found)
