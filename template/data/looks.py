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
from tqdm.auto import tqdm

from data.loaders import default_workers
from utils import UserError, brief

logger = logging.getLogger(__name__)

# Bits of a hash, grey levels of 256, and 1 for the same: see `near`.
DISTANCE, DIFFERENCE, CORRELATION = 6, 6.0, 0.95


@dataclass(frozen=True)
class Look:
    """What one look at a picture tells.

    Attributes:
        error: why it cannot be read; nothing else is known then.
        width, height: in pixels, upright.
        format: as Pillow calls it: "JPEG".
        digest: of the file's bytes, or of the pixels where there is no file.
        hash: 64 bits of a perceptual hash, in hexadecimal.
        thumbnail: 16 × 16 grey levels, in hexadecimal.
        mean, square: for each channel the mean of the values, from 0 to 1, and of their squares.
    """

    error: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    digest: str = ""
    hash: str = "0" * 16
    thumbnail: str = "00" * 256
    mean: Sequence[float] = (0, 0, 0)
    square: Sequence[float] = (0, 0, 0)


def all_looks(
    dataset: Dataset,
    files: Sequence[str],
    folder: Path | None,
    cache_dir: Path,
    at_once: int | None,
    num_workers: int | None,
) -> list[Look | None]:
    """A look at each item: from the cache where the file has not changed since, else at the picture itself."""
    paths = [folder and folder.resolve() / name for name in files]
    stamps = [stamp(path) if path else None for path in paths]
    with closing(open_cache(cache_dir)) as cache:
        below = os.fsencode(folder.resolve()) if folder else b""
        between = (below + b"/", below + b"0")  # "0" is what follows "/"
        rows = cache.execute("SELECT path, stamp, look FROM looks_v1 WHERE path > ? AND path < ?", between)
        cached = {path: (known, text) for path, known, text in rows}
        looks: list[Look | None] = []
        for path, now in zip(paths, stamps, strict=True):
            known, text = cached.get(path and os.fsencode(path), (None, ""))
            looks.append(Look(**json.loads(text)) if now and known == now else None)
        new = [i for i, one in enumerate(looks) if one is None]
        if at_once is not None and len(new) > at_once:
            logger.info("%d new pictures: python -m data.check looks at them all, once", len(new))
            return looks
        found = new_looks(Subset(Looking(dataset, paths), new), num_workers)
        progress = tqdm(found, "looking", len(new), leave=False, dynamic_ncols=True, disable=None)
        rows = []
        for i, one in zip(new, progress, strict=True):
            looks[i] = one
            if stamps[i] and not one.error:  # what was wrong may be mended without a change of the file
                rows.append((os.fsencode(paths[i]), stamps[i], json.dumps(asdict(one))))
            if len(rows) == 1000:
                keep(cache, rows)
                rows = []
        keep(cache, rows)
    return looks


def open_cache(cache_dir: Path) -> sqlite3.Connection:
    """The database of looks; one in memory where the folder cannot be written or the file is spoiled."""
    table = "CREATE TABLE IF NOT EXISTS looks_v1 (path BLOB PRIMARY KEY, stamp TEXT, look TEXT)"
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
            cache.executemany("INSERT OR REPLACE INTO looks_v1 VALUES (?, ?, ?)", rows)
    except sqlite3.Error as error:
        logger.warning("what is found is not kept (%s)", error)


def stamp(path: Path) -> str | None:
    """What changes when a file does; None where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_size} {status.st_mtime_ns}"


class Looking(Dataset):
    """A data set as `Look`s, for a DataLoader to share out among processes."""

    def __init__(self, dataset: Dataset, paths: Sequence[Path | None]) -> None:
        self.dataset, self.paths = dataset, paths

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Look:
        """A look at one of them."""
        path = self.paths[index]
        try:
            image, _ = self.dataset[index]
            if not path:
                return look_at(image, "", image.tobytes())
            with Image.open(path) as opened:
                return look_at(image, opened.format, path.read_bytes())
        except Exception as error:  # a data set of one's own may raise anything
            return Look(error=str(error) if isinstance(error, UserError) else f"{path or index}: {brief(error)}")


def new_looks(looking: Dataset, num_workers: int | None) -> Iterator[Look]:
    """Looks at pictures in several processes; in this one where there are few."""
    workers = default_workers(num_workers) if len(looking) > 200 else 0
    for batch in DataLoader(looking, batch_size=32, num_workers=workers, collate_fn=list):
        yield from batch


def look_at(image: Image.Image, kind: str, content: bytes) -> Look:
    """A look at a picture in RGB, `content` being the bytes of its file."""
    grey = image.convert("L")
    counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256) / (image.width * image.height)
    values = np.arange(256) / 255
    return Look(
        width=image.width,
        height=image.height,
        format=kind or "array",
        digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
        hash=str(imagehash.phash(grey)),
        thumbnail=grey.resize((16, 16), Image.Resampling.BOX).tobytes().hex(),
        mean=(counts @ values).tolist(),
        square=(counts @ values**2).tolist(),
    )


def same_pictures(looks: Sequence[Look]) -> list[list[int]]:
    """Groups of pictures that are the same: byte by byte, re-encoded or resized. Numbers in rising order.

    Args:
        looks: without errors.
    """
    first: dict[str, int] = {}
    parents = [first.setdefault(one.digest, i) for i, one in enumerate(looks)]

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = parents[parents[i]]
        return i

    alone = list(first.values())
    hashes = np.array([int(looks[i].hash, 16) for i in alone], dtype=np.uint64)
    thumbnails = np.frombuffer(bytes.fromhex("".join(looks[i].thumbnail for i in alone)), np.uint8).reshape(-1, 256)
    for a, b in near(hashes, thumbnails):
        a, b = sorted((root(alone[a]), root(alone[b])))
        parents[b] = a
    groups: dict[int, list[int]] = {}
    for i in range(len(looks)):
        groups.setdefault(root(i), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def near(hashes: np.ndarray, thumbnails: np.ndarray, rows: int = 1024) -> Iterator[tuple[int, int]]:
    """Pairs of pictures that look the same; one may come more than once.

    Two whose perceptual hashes (imagehash's `phash`, from a cosine transform) differ in few bits may be; they are when
    their thumbnails agree as well. Several hundred photographs, re-encoded at qualities from 20 to 90 and resized by
    1/4 to 2, differed by up to 4 bits and 5.2 grey levels, and no two different ones by less than 9.

    Not every pair has to be compared: cut into one piece more than the bits that may differ, two hashes have at least
    one piece in common (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR
    2012).

    Args:
        hashes: (N,) of uint64.
        thumbnails: (N, 256) of uint8.
        rows: how many are compared with others at a time; bounds the memory.
    """
    bits = 64 // (DISTANCE + 1)
    for piece in range(DISTANCE + 1):
        keys = hashes >> np.uint64(piece * bits) & np.uint64(2**bits - 1)
        order = keys.argsort(kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for start in range(0, len(group), rows):
                differing = np.bitwise_count(hashes[group[start : start + rows], None] ^ hashes[group[start:]])
                first, second = np.nonzero(differing <= DISTANCE)
                for a, b in zip(first[second > first], second[second > first], strict=True):
                    a, b = group[start + a], group[start + b]
                    if look_alike(thumbnails[a], thumbnails[b]):
                        yield int(a), int(b)


def look_alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two thumbnails, (256,) of uint8, agree in brightness and in pattern."""
    one, other = one.astype(float), other.astype(float)
    if np.abs(one - other).mean() > DIFFERENCE:
        return False
    one, other = one - one.mean(), other - other.mean()
    return one @ other >= CORRELATION * np.sqrt((one @ one) * (other @ other))
