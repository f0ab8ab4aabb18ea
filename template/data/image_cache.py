"""Cache of decoded and scaled images, for trainings that read them in every epoch: `--cache-images`."""

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
from data.image_dataset import image_sources, read_item
from data.splits import DatasetSplits, get_labels
from data.transformation import Transform, get_transforms

SPARE = 2**30  # bytes of the disk that are left to others


class CachedImages(Subset):
    """All of a data set, its images as the first steps of the transform leave them.

    The transform finds nothing left to do in these steps then, and gives what it would have given.
    """

    def __init__(self, dataset: Dataset, scale: v2.Compose, files: Sequence[Path]) -> None:
        """Wrap a data set.

        Args:
            dataset: images and labels.
            scale: PIL image → tensor (3, H, W) of uint8.
            files: where each image is cached, or will be.
        """
        super().__init__(dataset, range(len(dataset)))
        self.scale, self.files, self.targets = scale, files, get_labels(dataset)
        self.sides = image_io.needed_sides(scale)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor]:
        """Return the scaled image and its label; one that is not cached yet is read, and cached if there is room."""
        target = self.targets[index]
        try:
            pixels = np.load(self.files[index])
        except (OSError, ValueError, EOFError):
            image, _ = read_item(self.dataset, index, self.sides)
            pixels = self.scale(image).permute(1, 2, 0).numpy()  # in which order OpenCV wants them
            save_pixels(self.files[index], pixels)
        return torch.from_numpy(pixels).permute(2, 0, 1), target if isinstance(target, int) else torch.tensor(target)

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int | torch.Tensor]]:
        """Return several; a Subset would ask the data set itself."""
        return [self[i] for i in indices]


def save_pixels(path: Path, pixels: np.ndarray) -> None:
    """Write a file, unless the disk is almost full: a run needs room for more important ones."""
    with suppress(OSError):
        if shutil.disk_usage(path.parent).free > SPARE:
            with atomic_write(path, "wb") as file:
                np.save(file, pixels)


def cache_images(config: Config, data: DatasetSplits, cache_dir: Path) -> DatasetSplits:
    """Return the same data; with `--cache-images` its images for training and validation are decoded and scaled once.

    Args:
        config: cache_images; image_size, augmentation and resize decide what the images go through.
        data: before any transform.
        cache_dir: of the project.

    Raises:
        UserError: as `cache_part` does.
    """
    if not config.cache_images:
        return data
    train_transform, val_transform = get_transforms(config.image_size, config.augmentation, config.resize)
    train = cache_part(data.train, train_transform, cache_dir)
    val = cache_part(data.val, val_transform, cache_dir)
    return replace(data, train=train, val=val)


def cache_part(dataset: Dataset, transform: Transform, cache_dir: Path) -> CachedImages:
    """Wrap one part of the data, whose images will be in `pictures/` below the cache.

    An image is known by its file, size and time, so one that has changed is read again.

    Raises:
        UserError: nobody knows when an image of this data set changes; or the transform does not begin by scaling.
    """
    steps = getattr(transform, "transforms", [])[:2]
    expected = [v2.PILToTensor, v2.Resize]
    if len(steps) < 2 or not all(map(isinstance, steps, expected)):
        raise UserError("--cache-images needs transforms that begin with v2.PILToTensor() and v2.Resize(…)")
    sources = image_sources(dataset)
    if None in sources:
        raise UserError("--cache-images: what this data set makes of its files may change; leave it out")
    origin = digest(steps, Path(image_io.__file__).read_bytes(), versions("torchvision", "pillow"))
    store = cache_dir / "pictures" / origin.hex()
    store.mkdir(parents=True, exist_ok=True)
    files = [store / f"{digest(source).hex()}.npy" for source in sources]
    return CachedImages(dataset, v2.Compose(steps), files)
