"""From an image to what the network gets: made a square and, for training only, augmented with imgaug.

Change the augmenters below, call `show_dl` in the notebook, and see what your change does. A new one is a line in
`AUGMENTATIONS`; another way to make an image a square is a line in `RESIZES`.
"""

from collections.abc import Callable

import torch
from PIL import Image
from torchvision.transforms import v2

from core.errors import UserError, lookup

try:
    import imgaug.augmenters as iaa
except ImportError as error:
    if "libGL" not in str(error):
        raise
    raise UserError(f"OpenCV, which imgaug needs, lacks a system library ({error}); apt install libgl1") from error

from data.transformation.ImgAugTransform import ImgAugTransform
from data.transformation.ResizeLongSide import ResizeLongSide

Transform = Callable[[Image.Image], torch.Tensor]
Steps = list[v2.Transform]

photographs = iaa.Sequential(
    [
        iaa.Fliplr(0.5),
        iaa.Affine(scale=(0.85, 1.15), rotate=(-15, 15), shear=(-6, 6), mode="reflect"),
        iaa.Multiply((0.8, 1.2)),  # brightness
        iaa.LinearContrast((0.8, 1.25)),
        iaa.Sometimes(0.5, iaa.MultiplySaturation((0.6, 1.4))),
    ]
)
small = iaa.Sequential([iaa.Fliplr(0.5), iaa.Affine(translate_percent=(-0.12, 0.12), mode="reflect")])
characters = iaa.Affine(  # a flipped or a much turned one is another character, or none
    scale=(0.9, 1.1), rotate=(-10, 10), shear=(-8, 8), translate_percent=(-0.08, 0.08), mode="edge"
)

AUGMENTATIONS: dict[str, iaa.Augmenter] = {
    "photographs": photographs,
    "small": small,
    "characters": characters,
    "none": iaa.Identity(),
}


def crop(image_size: int) -> tuple[Steps, Steps]:
    """Scale the short side, then cut a square out: anywhere for training, else from the centre."""
    scale = v2.Resize(short_side(image_size))
    return [scale, v2.RandomCrop(image_size)], [scale, v2.CenterCrop(image_size)]


def pad(image_size: int) -> tuple[Steps, Steps]:
    """Scale the long side to that of the square; what is left of the square is black, half on either side."""
    steps = [ResizeLongSide(image_size), v2.CenterCrop(image_size)]  # CenterCrop pads what is smaller
    return steps, steps


def squash(image_size: int) -> tuple[Steps, Steps]:
    """Scale both sides to those of the square, whatever the aspect ratio."""
    steps = [v2.Resize((image_size, image_size))]
    return steps, steps


# From the side of the square to the steps that make an image one: for training, and for all else.
RESIZES: dict[str, Callable[[int], tuple[Steps, Steps]]] = {"crop": crop, "pad": pad, "squash": squash}


def get_transforms(
    image_size: int = 224, augmentation: str = "photographs", resize: str = "crop"
) -> tuple[Transform, Transform]:
    """Return the two pipelines, one for training and one for validation, test and prediction.

    Args:
        image_size: side of the square that the network gets, in pixels.
        augmentation: a key of `AUGMENTATIONS`, for the first one.
        resize: a key of `RESIZES`, for both.

    Returns:
        `train_transform` and `val_transform`: PIL image in RGB → uint8 tensor (3, image_size, image_size), 0 to 255.
        The network itself normalises.

    Raises:
        UserError: there is no such augmentation, or no such way to resize.
    """
    augmenter = lookup(augmentation, AUGMENTATIONS, "augmentation")
    train_steps, val_steps = lookup(resize, RESIZES, "resize")(image_size)
    # torchvision scales tensors three times faster than PIL images; no value differs by more than one.
    train = v2.Compose([v2.PILToTensor(), *train_steps, ImgAugTransform(augmenter)])
    val = v2.Compose([v2.PILToTensor(), *val_steps])
    return train, val


def short_side(image_size: int) -> int:
    """Return to how many pixels `crop` scales the short side: 256 for a square of 224, up to 64 px as many."""
    return image_size if image_size <= 64 else round(image_size * 8 / 7)


train_transform, val_transform = get_transforms()
