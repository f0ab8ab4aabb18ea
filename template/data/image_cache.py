"""Cache of decoded and resized images, for training that reads every image in every epoch: `--cache-images`."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from config import Config
from core.environment import versions
from core.errors import UserError
from core.files import atomic_write, digest
from data import image_io
from data.image_dataset import as_label, image_sources, read_item
from data.splits import DatasetSplits, get_labels
from data.transformation import Transform, get_transforms

MIN_FREE_SPACE = 2**30  # bytes that are left to others


class CachedImages(Subset):
    """Whole data set, its images as the first steps of the transform leave them; these change nothing any more."""

    def __init__(self, dataset: Dataset, resize: v2.Compose, files: Sequence[Path]) -> None:
        super().__init__(dataset, range(len(dataset)))
        self.resize = resize
        self.files = files  # of each image in the cache
        self.targets = get_labels(dataset)
        self.min_side = image_io.needed_side(resize)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor]:
        try:
            pixels = np.load(self.files[index])
        except (OSError, ValueError, EOFError):  # not cached yet, or damaged
            image, _ = read_item(self.dataset, index, self.min_side)
            pixels = self.resize(image).permute(1, 2, 0).numpy()  # the order of OpenCV
            save_pixels(self.files[index], pixels)
        return torch.from_numpy(pixels).permute(2, 0, 1), as_label(self.targets[index])

    def __getitems__(self, indices: list[int]) -> list:
        return [self[i] for i in indices]  # Subset would ask the data set itself


def save_pixels(path: Path, pixels: np.ndarray) -> None:
    """Cache an image unless the disk is almost full."""
    with suppress(OSError):
        if shutil.disk_usage(path.parent).free > MIN_FREE_SPACE:
            with atomic_write(path, "wb") as file:
                np.save(file, pixels)


def cache_images(config: Config, data: DatasetSplits, cache_dir: Path) -> DatasetSplits:
    """Return the data, its images for training and validation cached if `cache_images` is set.

    Raises:
        UserError: this data set or these transforms do not allow it.
    """
    if not config.cache_images:
        return data
    train_transform, val_transform = get_transforms(config.image_size, config.augmentation, config.resize)
    train = cache_part(data.train, train_transform, cache_dir)
    val = cache_part(data.val, val_transform, cache_dir)
    return replace(data, train=train, val=val)


def cache_part(dataset: Dataset, transform: Transform, cache_dir: Path) -> CachedImages:
    """Cache the images of one split, each until its file changes."""
    steps = getattr(transform, "transforms", [])[:2]
    if len(steps) < 2 or not isinstance(steps[0], v2.PILToTensor) or not isinstance(steps[1], v2.Resize):
        raise UserError("--cache-images needs transforms that begin with v2.PILToTensor() and v2.Resize(…)")
    sources = image_sources(dataset)
    if None in sources:
        raise UserError("--cache-images: the images of a custom data set may change; leave the option out")
    version = digest(steps, Path(image_io.__file__).read_bytes(), versions("torchvision", "pillow"))
    folder = cache_dir / "images" / version.hex()
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{digest(source).hex()}.npy" for source in sources]
    return CachedImages(dataset, v2.Compose(steps), files)
