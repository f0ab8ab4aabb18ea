"""From a picture to what the network gets: resized, cropped and, for training only, augmented with imgaug.

Change `augmenter` below, call `show_dl` in the notebook, and see what your change does.
"""

from collections.abc import Callable

import torch
from PIL import Image
from torchvision.transforms import v2

from utils import UserError

try:
    import imgaug.augmenters as iaa
except ImportError as error:
    if "libGL" not in str(error):
        raise
    raise UserError(f"OpenCV, which imgaug needs, lacks a system library ({error}); apt install libgl1") from error

from data.transformation.ImgAugTransform import ImgAugTransform

Transform = Callable[[Image.Image], torch.Tensor]

augmenter = iaa.Sequential(
    [
        iaa.Fliplr(0.5),
        iaa.Affine(scale=(0.85, 1.15), rotate=(-15, 15), shear=(-6, 6), mode="reflect"),
        iaa.Multiply((0.8, 1.2)),  # brightness
        iaa.LinearContrast((0.8, 1.25)),
        iaa.Sometimes(0.5, iaa.MultiplySaturation((0.6, 1.4))),
    ]
)


def get_transforms(image_size: int = 224) -> tuple[Transform, Transform]:
    """The two pipelines, one for training and one for validation, test and prediction.

    Both keep the aspect ratio: the short side is scaled to 8/7 of the size (256 for 224), then a square is cut out.

    Args:
        image_size: side of that square in pixels.

    Returns:
        `train_transform` and `val_transform`: PIL image in RGB → uint8 tensor (3, image_size, image_size), 0 to 255.
        The network itself normalises.
    """
    resize = v2.Resize(round(image_size * 8 / 7))
    train = v2.Compose([resize, v2.RandomCrop(image_size), ImgAugTransform(augmenter), v2.PILToTensor()])
    val = v2.Compose([resize, v2.CenterCrop(image_size), v2.PILToTensor()])
    return train, val


train_transform, val_transform = get_transforms()
