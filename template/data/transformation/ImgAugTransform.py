"""imgaug in a torchvision pipeline."""

from collections.abc import Iterator
from typing import Any

import cv2
import imgaug.augmenters as iaa
import imgaug.random
import numpy as np
import torch
from PIL import Image


class ImgAugTransform:
    """An imgaug augmenter as a step of a torchvision pipeline.

    imgaug keeps random states of its own, which each worker of a DataLoader copies: workers would repeat one another,
    and every epoch the first. Here all randomness comes from torch's generator, as in torchvision's transforms;
    seeds given to the augmenter are ignored.
    """

    def __init__(self, augmenter: iaa.Augmenter) -> None:
        self.augmenter = augmenter
        self.parts = list(parts_of(augmenter))

    def __call__(self, image: torch.Tensor | Image.Image) -> torch.Tensor | Image.Image:
        """Augment an image: a tensor (3, H, W) of uint8, or a PIL image in RGB."""
        rng = FastRNG(torch.randint(2**63 - 1, ()).item())
        for part in self.parts:
            part.random_state = rng
        if isinstance(image, torch.Tensor):
            pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            augmented = np.ascontiguousarray(self.augmenter(image=pixels))
            return torch.from_numpy(augmented).permute(2, 0, 1)
        return Image.fromarray(self.augmenter(image=np.asarray(image)))

    def __repr__(self) -> str:
        return f"ImgAugTransform({self.augmenter})"


class FastRNG(imgaug.random.RNG):
    """imgaug's random generator without the copy of its state at each step, a tenth of an augmentation's time."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.Generator(np.random.SFC64(seed)))
        # makes imgaug discard the numbers that it has drawn in advance from another generator
        self._idx = object()

    def advance_(self) -> "FastRNG":
        self.generator.random()
        return self


def parts_of(value: Any) -> Iterator[iaa.Augmenter]:
    """Yield all augmenters in a value; imgaug's own `get_all_children` misses those of the brightness family."""
    if isinstance(value, iaa.Augmenter):
        yield value
        for inner in vars(value).values():
            yield from parts_of(inner)
    if isinstance(value, (list, tuple)):  # a Sequential is a list, too
        for inner in value:
            yield from parts_of(inner)


def use_one_thread(_: int) -> None:
    """Initialise a worker: OpenCV, unlike torch, would use all cores in each of them."""
    cv2.setNumThreads(0)
