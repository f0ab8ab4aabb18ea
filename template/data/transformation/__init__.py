"""From a picture to what the network gets: resized, cropped and, for training only, augmented with imgaug.

Change the augmenters below, call `show_dl` in the notebook, and see what your change does. A new one is a line in
`AUGMENTATIONS`.
"""

from collections.abc import Callable

import torch
from PIL import Image
from torchvision.transforms import v2

from utils import UserError, lookup

try:
    import imgaug.augmenters as iaa
except ImportError as error:
    if "libGL" not in str(error):
        raise
    raise UserError(f"OpenCV, which imgaug needs, lacks a system library ({error}); apt install libgl1") from error

from data.transformation.ImgAugTransform import ImgAugTransform

Transform = Callable[[Image.Image], torch.Tensor]

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


def get_transforms(image_size: int = 224, augmentation: str = "photographs") -> tuple[Transform, Transform]:
    """The two pipelines, one for training and one for validation, test and prediction.

    Both keep the aspect ratio: the short side is scaled to 8/7 of the size (256 for 224), then a square is cut out. Up
    to 64 px nothing is given away: the short side becomes that of the square.

    Args:
        image_size: side of that square in pixels.
        augmentation: a key of `AUGMENTATIONS`, for the first one.

    Returns:
        `train_transform` and `val_transform`: PIL image in RGB → uint8 tensor (3, image_size, image_size), 0 to 255.
        The network itself normalises.

    Raises:
        UserError: there is no such augmentation.
    """
    augmenter = lookup(augmentation, AUGMENTATIONS, "augmentation")
    # torchvision scales tensors three times faster than pictures; no value differs by more than one.
    scale = [v2.PILToTensor(), v2.Resize(short_side(image_size))]
    train = v2.Compose([*scale, v2.RandomCrop(image_size), ImgAugTransform(augmenter)])
    val = v2.Compose([*scale, v2.CenterCrop(image_size)])
    return train, val


def short_side(image_size: int) -> int:
    """To how many pixels the short side of a picture is scaled before a square is cut out of it."""
    return image_size if image_size <= 64 else round(image_size * 8 / 7)


train_transform, val_transform = get_transforms()
