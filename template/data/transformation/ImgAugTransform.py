"""imgaug inside a torchvision pipeline."""

from collections.abc import Iterator
from typing import Any

import imgaug.augmenters as iaa
import imgaug.random
import numpy as np
import torch
from PIL import Image


class ImgAugTransform:
    """Makes an imgaug augmenter a step of a torchvision pipeline.

    imgaug keeps random states of its own. Every worker of a DataLoader gets a copy of them, so that workers repeat one
    another and every epoch repeats the first. Here all randomness comes from torch's generator instead, as with
    torchvision's own transforms: it differs from worker to worker, goes on from epoch to epoch and follows the seed.

    Example:
        >>> transform = ImgAugTransform(iaa.Sequential([iaa.Fliplr(0.5), iaa.Affine(rotate=(-30, 30))]))
        >>> augmented = transform(image)
    """

    def __init__(self, augmenter: iaa.Augmenter) -> None:
        """Takes over the augmenter, with all that it contains.

        Args:
            augmenter: any of imgaug's; a seed given to it is replaced.
        """
        self.augmenter = augmenter
        self.parts = list(parts_of(augmenter))

    def __call__(self, image: torch.Tensor | Image.Image) -> torch.Tensor | Image.Image:
        """Augments one picture.

        Args:
            image: tensor (3, H, W) of uint8, PIL image in RGB, or an array (H, W, 3) of uint8.

        Returns:
            A tensor for a tensor, else a PIL image. Its size is the same unless the augmenter changes sizes.
        """
        rng = FastRNG(torch.randint(2**63 - 1, ()).item())
        for part in self.parts:
            part.random_state = rng
        if isinstance(image, torch.Tensor):
            pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            return torch.from_numpy(np.ascontiguousarray(self.augmenter(image=pixels))).permute(2, 0, 1)
        return Image.fromarray(self.augmenter(image=np.asarray(image)))

    def __repr__(self) -> str:
        """As it would be typed."""
        return f"ImgAugTransform({self.augmenter})"


class FastRNG(imgaug.random.RNG):
    """imgaug's source of random numbers; does not copy its state at every step, a tenth of an augmentation's time."""

    def __init__(self, seed: int) -> None:
        """From 0 to 2 ** 63 - 1."""
        super().__init__(np.random.Generator(np.random.SFC64(seed)))
        self._idx = object()  # tells imgaug to throw away the numbers that it has drawn ahead from the one before

    def advance_(self) -> "FastRNG":
        """One number further."""
        self.generator.random()
        return self


def parts_of(value: Any) -> Iterator[iaa.Augmenter]:
    """All augmenters within a value; imgaug's own `get_all_children` misses those of the brightness family."""
    if isinstance(value, iaa.Augmenter):
        yield value
        for inner in vars(value).values():
            yield from parts_of(inner)
    if isinstance(value, (list, tuple)):  # a Sequential is a list as well
        for inner in value:
            yield from parts_of(inner)
