"""Reading pictures: every kind that cameras, scanners and the web produce comes out as the same upright RGB."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import Resize, v2

from core.errors import UserError, format_error

logger = logging.getLogger(__name__)

Sides = tuple[int, int]  # the short and the long side, in pixels


def is_image(path: str | Path) -> bool:
    """Whether the name is that of a picture; hidden files (`._photo.jpg` of macOS) are not."""
    path = Path(path)
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")


def walk_folders(top: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Walk through a folder and all below it, in links to folders too, but in nothing that is hidden.

    Each folder is visited once, however many links lead to it: first those that are really there, then linked ones.
    A link to a folder that it lies in is skipped.

    Yields:
        The path of a folder, and the names of its files.
    """
    visited: set[str] = set()
    starts = [os.fspath(top)]
    for start in starts:  # grows by the links that are found
        for folder, subfolders, names in os.walk(start):
            real = os.path.realpath(folder)
            if real in visited:
                subfolders.clear()
                continue
            visited.add(real)
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            yield folder, names
            for name in subfolders:
                path = os.path.join(folder, name)
                if os.path.islink(path) and not Path(real).is_relative_to(os.path.realpath(path)):
                    starts.append(path)


def images_in(folder: str | Path) -> Iterator[str]:
    """Yield the paths of all images below a folder, see `walk_folders`."""
    for top, names in walk_folders(folder):
        yield from (os.path.join(top, name) for name in names if is_image(name))


def needed_sides(transform: Callable[[Image.Image], Any]) -> Sides | None:
    """Return how large an image has to be for a transform, so that large JPEGs need not be decoded whole.

    Decoding at half, a quarter or an eighth of the size is several times faster. Twice the size that the transform
    scales to is enough: on photographs of 3 and 12 megapixels what comes out differed by 5 of 255 at most (54 dB).

    Args:
        transform: what the image will go through.

    Returns:
        The short and the long side in pixels; None if the transform does not begin by resizing.
    """
    steps = getattr(transform, "transforms", [transform])
    first = next((step for step in steps if not isinstance(step, (v2.PILToTensor, v2.ToImage))), None)
    if not isinstance(first, (v2.Resize, Resize)):
        return None
    if not first.size:  # the long side alone is scaled, to max_size
        return 1, 2 * first.max_size
    side = 2 * int(np.max(first.size))
    return side, side


def read_image(path: str | Path, sides: Sides | None = None) -> Image.Image:
    """Read one image: upright as its EXIF says, transparency on white, 16-bit and floating-point grey scaled to 8.

    Args:
        path: any file that Pillow reads; grey, palette and CMYK images too.
        sides: a large JPEG may be decoded smaller, but not below these, see `needed_sides` (default: whole).

    Returns:
        The image, mode RGB.

    Raises:
        UserError: it is missing, no image, cut short, larger than Pillow's limit for decompression bombs, or so
            narrow that it would become one when its short side is scaled.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"cannot read the image {path} (it is no file); replace or remove it")
    try:
        with Image.open(path) as image:
            if sides:
                short, long = sides
                wide = image.width > image.height
                image.draft(None, (long, short) if wide else (short, long))  # does nothing but to a JPEG
            image.load()
            try:
                image = ImageOps.exif_transpose(image)
            except Exception:  # whatever spoiled EXIF data makes Pillow raise; the picture itself is there
                logger.debug("%s: the EXIF data cannot be read", path)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).partition("\n")[0]
        raise UserError(
            f"cannot read the image {path} ({reason or format_error(error)}); replace or remove it"
        ) from error
    if max(image.size) > 100 * min(image.size):
        size = f"{image.width} × {image.height} pixels"
        raise UserError(f"cannot read the image {path} ({size}, too narrow); replace or remove it")
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64)).clip(0)
        whites = {"I": (255, 65535), "F": (1, 255, 65535)}.get(image.mode, (65535,))  # scales that are in use
        white = next((white for white in whites if values.max() <= white), values.max())
        image = Image.fromarray((values * (255 / white)).round().astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
