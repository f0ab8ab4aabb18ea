"""One look at each picture: what it is like, remembered until its file changes, and which of them are the same."""

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset

from core.errors import UserError, format_error
from core.progress import progress_bar
from data.image_dataset import file_signature, path_of
from data.loaders import default_workers
from data.splits import flatten_dataset

logger = logging.getLogger(__name__)

# Bits of a hash that may differ, side of a thumbnail in pixels, share of its contrast: see `find_duplicates`.
DISTANCE, SIDE, DIFFERENCE = 6, 12, 0.15


@dataclass(frozen=True)
class ImageStats:
    """What one look at a picture tells.

    Attributes:
        error: why it cannot be read; nothing else is known then.
        width, height: in pixels, upright.
        format: as Pillow calls it: "JPEG".
        digest: of the file's bytes, or of the pixels where there is no file.
        hash: 64 bits of a perceptual hash, in hexadecimal.
        thumbnail: SIDE × SIDE × 3 values from 0 to 255, in hexadecimal.
        mean, square: for each channel the mean of the values, from 0 to 1, and of their squares.
    """

    error: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    digest: str = ""
    hash: str = "0" * 16
    thumbnail: str = "00" * (SIDE * SIDE * 3)
    mean: Sequence[float] = (0, 0, 0)
    square: Sequence[float] = (0, 0, 0)


def collect_image_stats(
    dataset: Dataset, cache_dir: Path, at_once: int | None, num_workers: int | None
) -> list[ImageStats | None]:
    """A look at each item: from the cache where the file has not changed since, else at the picture itself.

    What a custom data set makes of a file may change, so it is not known by its file.
    """
    paths = [path_of(part, i) for part, i in flatten_dataset(dataset)]
    stamps = [file_signature(path) if path else None for path in paths]
    with closing(open_cache(cache_dir)) as cache:
        known = [path for path in paths if path]
        below = os.fsencode(os.path.commonpath(known)).rstrip(b"/") if known else b""
        between = (below + b"/", below + b"0")  # "0" is what follows "/"
        stored = cache.execute("SELECT path, stamp, look FROM looks_v2 WHERE path > ? AND path < ?", between)
        cached = {path: (known, text) for path, known, text in stored}
        looks: list[ImageStats | None] = []
        for path, now in zip(paths, stamps, strict=True):
            known, text = cached.get(path and os.fsencode(path), (None, ""))
            looks.append(ImageStats(**json.loads(text)) if now and known == now else None)
        new = [i for i, one in enumerate(looks) if one is None]
        if at_once is not None and len(new) > at_once:
            logger.info("%d pictures were not looked at yet: python -m data.check does it", len(new))
            return looks
        found = compute_missing_stats(Subset(ImageStatsDataset(dataset, paths), new), num_workers)
        rows: list[tuple[bytes, str, str]] = []
        try:
            for i, one in zip(new, progress_bar("checking", found, len(new)), strict=True):
                looks[i] = one
                if stamps[i] and not one.error:  # what was wrong may be mended without a change of the file
                    rows.append((os.fsencode(paths[i]), stamps[i], json.dumps(asdict(one))))
                if len(rows) == 1000:
                    keep(cache, rows)
                    rows = []
        finally:  # a check that is interrupted continues from here
            keep(cache, rows)
    return looks


def open_cache(cache_dir: Path) -> sqlite3.Connection:
    """The database of looks; one in memory where the folder cannot be written or the file is spoiled."""
    table = "CREATE TABLE IF NOT EXISTS looks_v2 (path BLOB PRIMARY KEY, stamp TEXT, look TEXT)"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        cache = sqlite3.connect(cache_dir / "looks.sqlite", timeout=30)
        cache.execute(table)
    except (OSError, sqlite3.Error) as error:
        logger.warning("what is found is not kept: %s (%s)", cache_dir / "looks.sqlite", error)
        cache = sqlite3.connect(":memory:")
        cache.execute(table)
    return cache


def keep(cache: sqlite3.Connection, rows: Sequence[tuple[bytes, str, str]]) -> None:
    """Adds looks to the database, at once, since another training may be writing too."""
    try:
        with cache:
            cache.executemany("INSERT OR REPLACE INTO looks_v2 VALUES (?, ?, ?)", rows)
    except sqlite3.Error as error:
        logger.warning("what is found is not kept (%s)", error)


class ImageStatsDataset(Dataset):
    """A data set as `Look`s, for a DataLoader to share out among processes."""

    def __init__(self, dataset: Dataset, paths: Sequence[Path | None]) -> None:
        self.dataset, self.paths = dataset, paths

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> ImageStats:
        """A look at one of them."""
        path = self.paths[index]
        try:
            image, _ = self.dataset[index]
            if not path:
                return compute_image_stats(image, "", image.tobytes())
            with Image.open(path) as opened:
                return compute_image_stats(image, opened.format, path.read_bytes())
        except Exception as error:  # a data set of one's own may raise anything
            return ImageStats(
                error=str(error) if isinstance(error, UserError) else f"{path or index}: {format_error(error)}"
            )


def compute_missing_stats(looking: Dataset, num_workers: int | None) -> Iterator[ImageStats]:
    """Looks at pictures in several processes; in this one where there are few."""
    workers = default_workers(num_workers) if len(looking) > 200 else 0
    for batch in DataLoader(looking, batch_size=32, num_workers=workers, collate_fn=list):
        yield from batch


def compute_image_stats(image: Image.Image, kind: str, content: bytes) -> ImageStats:
    """A look at a picture in RGB, `content` being the bytes of its file."""
    counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256) / (image.width * image.height)
    values = np.arange(256) / 255
    return ImageStats(
        width=image.width,
        height=image.height,
        format=kind or "array",
        digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
        hash=str(imagehash.phash(image)),
        thumbnail=image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).tobytes().hex(),
        mean=(counts @ values).tolist(),
        square=(counts @ values**2).tolist(),
    )


def find_duplicates(looks: Sequence[ImageStats]) -> list[list[int]]:
    """Groups of pictures that are the same: byte by byte, re-encoded or resized. Numbers in rising order.

    Each is compared with the first one of a group only: of a hundred frames of a film, each like the next, the first
    and the last need not be the same.

    Two whose perceptual hashes (imagehash's `phash`, from a cosine transform) differ in few bits may be the same; they
    are when their thumbnails agree as well, see `alike`. Not every pair has to be compared: cut into one piece more
    than the bits that may differ, two hashes have at least one piece in common (Norouzi, Punjani and Fleet, "Fast
    Search in Hamming Space with Multi-Index Hashing", CVPR 2012).

    Args:
        looks: without errors.
    """
    known: dict[str, int] = {}
    same_bytes = [known.setdefault(one.digest, i) for i, one in enumerate(looks)]
    alone = np.array(list(known.values()), dtype=int)
    hashes = np.array([int(looks[i].hash, 16) for i in alone], dtype=np.uint64)
    thumbnails = np.frombuffer(bytes.fromhex("".join(looks[i].thumbnail for i in alone)), np.uint8)
    thumbnails = thumbnails.reshape(len(alone), SIDE * SIDE, 3)

    bits = 64 // (DISTANCE + 1)
    pieces = [hashes >> np.uint64(piece * bits) & np.uint64(2**bits - 1) for piece in range(DISTANCE + 1)]
    orders = [keys.argsort(kind="stable") for keys in pieces]
    bounds = [
        [np.searchsorted(keys[order], keys, side) for side in ("left", "right")]
        for keys, order in zip(pieces, orders, strict=True)
    ]
    first = np.arange(len(alone))  # for each the first one of its group
    for i in range(len(alone)):
        if first[i] == i:
            mates = [order[start[i] : end[i]] for order, (start, end) in zip(orders, bounds, strict=True)]
            others = np.unique(np.concatenate(mates))
            others = others[(others > i) & (first[others] == others)]
            others = others[np.bitwise_count(hashes[others] ^ hashes[i]) <= DISTANCE]
            first[others[alike(thumbnails[i], thumbnails[others])]] = i

    where = dict(zip(alone.tolist(), alone[first].tolist(), strict=True))
    groups: dict[int, list[int]] = {}
    for i, one in enumerate(same_bytes):
        groups.setdefault(where[one], []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def alike(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether thumbnails agree: whether they differ by little of the contrast that they have.

    Differences and contrast are root mean squares. Photographs re-encoded at qualities from 30 to 90 and resized by 1/4
    to 2 differ by less than 0.08 of their contrast, characters of 28 pixels by less than 0.15, and different pictures,
    whether photographs, characters or discs of two colours, by at least 0.29. A picture without colour is compared by
    brightness alone: it may be another one in black and white.

    Args:
        one: (D, 3) of uint8.
        others: (N, D, 3) of uint8.

    Returns:
        (N,) of bool.
    """

    def agree(one: np.ndarray, others: np.ndarray) -> np.ndarray:
        contrast = np.maximum((one.var() + others.var(axis=(1, 2))) / 2, 1)
        return ((others - one) ** 2).mean(axis=(1, 2)) <= DIFFERENCE**2 * contrast

    one, others = one.astype(np.float32), others.astype(np.float32)
    coloured = np.ptp(one, axis=1).any() & (np.ptp(others, axis=2) > 0).any(axis=1)
    luma = np.array([[0.299], [0.587], [0.114]], np.float32)  # as Pillow weighs red, green and blue
    return agree(one, others) | (~coloured & agree(one @ luma, others @ luma))
