"""Transforms: resizing to a square and, for training only, augmentation with imgaug.

Change the augmenters below and call `show_dl` in the notebook to see the effect. A new augmentation is a line in
`AUGMENTATIONS`, another way to resize a line in `RESIZES`.
"""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import v2

from core.errors import UserError, lookup

try:
    import imgaug.augmenters as iaa
except ImportError as error:
    if "libGL" not in str(error):
        raise
    raise UserError(f"a system library that OpenCV needs is missing ({error}); apt install libgl1") from error

from data.transformation.ImgAugTransform import ImgAugTransform

Transform = Callable[[Image.Image], torch.Tensor]
Steps = list[v2.Transform]

photographs = iaa.Sequential(
    [
        iaa.Fliplr(0.5),
        iaa.Affine(
            scale=(0.85, 1.15),
            rotate=(-15, 15),
            shear=(-6, 6),
            mode="reflect",
        ),
        iaa.Multiply((0.8, 1.2)),  # brightness
        iaa.LinearContrast((0.8, 1.25)),
        iaa.Sometimes(0.5, iaa.MultiplySaturation((0.6, 1.4))),
    ]
)
small = iaa.Sequential(
    [
        iaa.Fliplr(0.5),
        iaa.Affine(translate_percent=(-0.12, 0.12), mode="reflect"),
    ]
)
characters = iaa.Affine(  # no flips and little rotation, or it would be another character
    scale=(0.9, 1.1),
    rotate=(-10, 10),
    shear=(-8, 8),
    translate_percent=(-0.08, 0.08),
    mode="edge",
)

AUGMENTATIONS = {
    "photographs": photographs,
    "small": small,
    "characters": characters,
    "none": iaa.Identity(),
}


class ResizeLongSide(v2.Resize):
    """Resize of the long side. `v2.Resize(None, max_size=…)` rounds the short side down, to 0 for narrow images."""

    def __init__(self, max_size: int) -> None:
        super().__init__(None, max_size=max_size)

    def transform(self, image: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        height, width = image.shape[-2:]
        scale = self.max_size / max(height, width)
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        return v2.functional.resize(image, size)


def crop(image_size: int) -> tuple[Steps, Steps]:
    """Resize the short side, then crop a square: at random for training, else the centre."""
    resize = v2.Resize(short_side(image_size))
    return [resize, v2.RandomCrop(image_size)], [resize, v2.CenterCrop(image_size)]


def pad(image_size: int) -> tuple[Steps, Steps]:
    """Resize the long side, then pad the short side with black on both ends."""
    steps = [ResizeLongSide(image_size), v2.CenterCrop(image_size)]  # CenterCrop pads what is smaller
    return steps, steps


def squash(image_size: int) -> tuple[Steps, Steps]:
    """Resize both sides, whatever the aspect ratio."""
    steps = [v2.Resize((image_size, image_size))]
    return steps, steps


# From the side of the square to the steps that produce it: for training, and for validation, test and prediction.
RESIZES = {"crop": crop, "pad": pad, "squash": squash}


def get_transforms(
    image_size: int = 224, augmentation: str = "photographs", resize: str = "crop"
) -> tuple[Transform, Transform]:
    """Return two pipelines, for training, and for validation, test and prediction.

    Each maps a PIL image in RGB to a uint8 tensor (3, image_size, image_size); the network normalises it.
    """
    augmenter = lookup(augmentation, AUGMENTATIONS, "augmentation")
    train_steps, val_steps = lookup(resize, RESIZES, "resize")(image_size)
    # torchvision resizes tensors three times faster than PIL images; values differ by at most 1.
    train = v2.Compose([v2.PILToTensor(), *train_steps, ImgAugTransform(augmenter)])
    val = v2.Compose([v2.PILToTensor(), *val_steps])
    return train, val


def short_side(image_size: int) -> int:
    """Return the short side before the crop, in pixels: 256 for 224; the same up to 64, where nothing is cut off."""
    return image_size if image_size <= 64 else round(image_size * 8 / 7)


train_transform, val_transform = get_transforms()
