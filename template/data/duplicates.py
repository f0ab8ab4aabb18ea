"""Statistics of each image of a data set, cached until the image changes, and duplicates found by them."""

import logging
import uuid
from itertools import chain
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image, ImageStat
from torch.utils.data import DataLoader, Dataset

from core.errors import UserError, format_error
from core.files import atomic_write, digest
from core.progress import progress_bar
from data.image_dataset import image_sources
from data.loaders import default_workers
from data.splits import flatten_dataset

logger = logging.getLogger(__name__)

MAX_DISTANCE = 6  # bits in which the perceptual hashes of duplicates may differ
MAX_DIFFERENCE = 0.15  # of two thumbnails, as a share of their contrast
THUMBNAIL_SIZE = 12  # pixels
SAVE_EVERY = 1000  # images

ImageStats = np.dtype(
    [
        ("width", np.int32),  # 0: the image was not read
        ("height", np.int32),
        ("hash", np.uint64),  # perceptual hash
        ("thumbnail", np.uint8, (THUMBNAIL_SIZE**2, 3)),
        ("mean", np.float64, 3),  # of each channel, whose values are from 0 to 255
        ("rms", np.float64, 3),  # root mean square
    ]
)


def compute_image_stats(image: Image.Image) -> np.ndarray:
    """Return the statistics of an RGB image: () of `ImageStats`."""
    bits = np.packbits(imagehash.phash(image).hash).view(np.uint64)[0]
    thumbnail = image.resize((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BICUBIC)
    pixels = np.asarray(thumbnail).reshape(-1, 3)
    channels = ImageStat.Stat(image)
    return np.array((*image.size, bits, pixels, channels.mean, channels.rms), ImageStats)


class ImageStatsDataset(Dataset):
    """Data set whose items are the statistics of an image, or why it cannot be read."""

    def __init__(self, dataset: Dataset) -> None:
        self.items = flatten_dataset(dataset)

    def __getitem__(self, index: int) -> np.ndarray | str:
        dataset, i = self.items[index]
        try:
            image, _ = dataset[i]
            return compute_image_stats(image)
        except UserError as error:
            return str(error)
        except Exception as error:  # a custom data set may raise anything
            return f"image {i}: {format_error(error)}"


def collect_image_stats(
    dataset: Dataset, cache_dir: Path, max_new: int | None, num_workers: int | None
) -> tuple[np.ndarray, dict[int, str]]:
    """Return (N,) of `ImageStats`, with a width of 0 where they are missing, and the errors by index.

    They are read from the cache where the image has not changed; an interrupted call caches what it has computed.

    Args:
        max_new: compute nothing if more than this many images are not cached (default: no limit).
    """
    folder = cache_dir / "image_stats"
    keys = np.array([digest(source).hex() if source else "" for source in image_sources(dataset)])
    stats = np.zeros(len(keys), ImageStats)
    errors: dict[int, str] = {}
    cached = load_stats(folder)
    for i, key in enumerate(keys):
        if key in cached:
            stats[i] = cached[key]
    new = np.flatnonzero(stats["width"] == 0).tolist()
    if max_new is not None and len(new) > max_new:
        logger.info("%d new images are not checked; to check them: python -m data.check", len(new))
        return stats, errors

    workers = default_workers(num_workers) if len(new) > 200 else 0
    loader = DataLoader(ImageStatsDataset(dataset), 32, sampler=new, num_workers=workers, collate_fn=list)
    results = progress_bar("checking", chain.from_iterable(loader), len(new))
    unsaved = []
    try:
        for i, result in zip(new, results, strict=True):
            if isinstance(result, str):
                errors[i] = result
                continue
            stats[i] = result
            if keys[i]:
                unsaved.append(i)
            if len(unsaved) == SAVE_EVERY:
                save_stats(folder, keys[unsaved], stats[unsaved])
                unsaved.clear()
    finally:
        if unsaved:
            save_stats(folder, keys[unsaved], stats[unsaved])
    return stats, errors


def load_stats(folder: Path) -> dict[str, np.ndarray]:
    """Return the cached statistics by key; a file that is damaged is deleted."""
    cached: dict[str, np.ndarray] = {}
    for path in folder.glob("*.npz"):
        try:
            with np.load(path) as file:  # compares checksums
                cached.update(zip(file["keys"].tolist(), file["stats"].astype(ImageStats), strict=True))
        except Exception as error:  # numpy and zipfile may raise anything for a damaged file
            logger.warning("%s is damaged and ignored (%s)", path, format_error(error))
            path.unlink(missing_ok=True)
    return cached


def save_stats(folder: Path, keys: np.ndarray, stats: np.ndarray) -> None:
    """Add statistics to the cache, as a new file, since other processes may be writing too."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / f"{uuid.uuid4().hex}.npz", "wb") as file:
            np.savez(file, keys=keys, stats=stats)
    except OSError as error:
        logger.warning("image statistics are not cached (%s)", format_error(error))


def find_duplicates(stats: np.ndarray) -> list[list[int]]:
    """Return groups of duplicates, by ascending indices: identical, re-encoded or resized images.

    Images whose perceptual hashes differ in at most `MAX_DISTANCE` bits are compared by their thumbnails. Such hashes
    have one of MAX_DISTANCE + 1 pieces in common, which leaves few pairs (Norouzi, Punjani and Fleet, "Fast Search in
    Hamming Space with Multi-Index Hashing", CVPR 2012). Images are compared with the first one of a group only: the
    first and the last frame of a long pan are not duplicates although each frame resembles the next.
    """
    hashes = stats["hash"]
    thumbnails = stats["thumbnail"]
    n_bits = 64 // (MAX_DISTANCE + 1)
    shifts = np.arange(MAX_DISTANCE + 1, dtype=np.uint64) * np.uint64(n_bits)
    pieces = (hashes[:, None] >> shifts) % np.uint64(2**n_bits)  # (N, MAX_DISTANCE + 1)
    buckets = [pd.Series(hashes).groupby(column).indices for column in pieces.T]
    first = np.arange(len(stats))  # of the group of each image
    for i in range(len(stats)):
        if first[i] != i:
            continue
        same_piece = [bucket[piece] for bucket, piece in zip(buckets, pieces[i], strict=True)]
        others = np.unique(np.concatenate(same_piece))
        others = others[(others > i) & (first[others] == others)]
        others = others[np.bitwise_count(hashes[others] ^ hashes[i]) <= MAX_DISTANCE]
        first[others[are_similar(thumbnails[i], thumbnails[others])]] = i
    groups = pd.Series(first).groupby(first).indices.values()
    return [group.tolist() for group in groups if len(group) > 1]


def are_similar(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which thumbnails (N, P, 3) differ from one (P, 3) by little of their contrast, as root mean squares.

    Photographs re-encoded at qualities from 30 to 90 and resized by 1/4 to 2 differ by less than 0.08 of their
    contrast, characters of 28 pixels by less than 0.15, and different images by at least 0.29. If one of the two has
    no colour, their brightness is compared.
    """
    one, others = one.astype(np.float32), others.astype(np.float32)
    grey = ~np.ptp(others, axis=2).any(axis=1)
    if not np.ptp(one, axis=1).any():
        grey[:] = True
    luma = np.array([[0.299], [0.587], [0.114]], np.float32)
    return difference_is_small(one, others) | (grey & difference_is_small(one @ luma, others @ luma))


def difference_is_small(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compare the mean squared difference with the mean variance."""
    variance = (one.var() + others.var(axis=(1, 2))) / 2
    difference = ((others - one) ** 2).mean(axis=(1, 2))
    return difference <= MAX_DIFFERENCE**2 * np.maximum(variance, 1)
