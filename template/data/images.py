"""Reading pictures: every kind that cameras, scanners and the web produce comes out as the same upright RGB."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from utils import UserError


def is_image(path: str | Path) -> bool:
    """Whether the name is that of a picture; hidden files (`._photo.jpg` of macOS) are not."""
    path = Path(path)
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")


def read_image(path: str | Path) -> Image.Image:
    """Reads one picture: upright as its EXIF says, transparency on white, 16-bit and floating-point grey scaled to 8.

    Args:
        path: any file that Pillow reads; grey, palette and CMYK pictures too.

    Returns:
        The picture, mode RGB.

    Raises:
        UserError: it is missing, no picture, cut short, or larger than Pillow's limit for decompression bombs.
    """
    try:
        with Image.open(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise UserError(f"cannot read the image {path} ({reason}); replace or remove it") from error
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64)).clip(0)
        whites = {"I": (255, 65535), "F": (1, 255, 65535)}.get(image.mode, (65535,))  # scales that are in use
        white = next((white for white in whites if values.max() <= white), values.max())
        image = Image.fromarray((values * (255 / white)).round().astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
