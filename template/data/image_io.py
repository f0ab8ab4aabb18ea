"""Finding and reading image files, whatever cameras, scanners and the web produce, as upright RGB."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import Resize, v2

from core.errors import UserError

logger = logging.getLogger(__name__)

WHITE = {"I": [255, 65535], "F": [1, 255, 65535]}  # possible values, by Pillow's mode; others have 16 bits


def is_image(path: str | Path) -> bool:
    """Return whether a file name has the extension of an image and is not hidden, as macOS's `._photo.jpg` is."""
    path = Path(path)
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")


def walk_folders(top: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the path of each folder below `top`, links included, and the names of its files, level by level.

    Each folder is visited once. Hidden folders and links out of `top` to a folder that holds it are skipped.
    """
    visited = set(map(str, Path(top).resolve().parents))
    folders = [os.fspath(top)]
    for folder in folders:  # grows
        real = os.path.realpath(folder)
        if real in visited:
            continue
        visited.add(real)
        _, subfolders, names = next(os.walk(folder), (folder, [], []))
        yield folder, names
        folders += [os.path.join(folder, name) for name in sorted(subfolders) if not name.startswith(".")]


def images_in(folder: str | Path) -> Iterator[str]:
    """Yield the paths of all images below a folder, see `walk_folders`."""
    for parent, names in walk_folders(folder):
        for name in names:
            if is_image(name):
                yield os.path.join(parent, name)


def needed_side(transform: Callable[[Image.Image], Any]) -> int | None:
    """Return the short side that large JPEGs may be decoded at; None if the transform does not begin with a resize.

    JPEGs can be decoded at 1/2, 1/4 or 1/8 of their size, which is several times faster. Twice the size that the
    transform resizes to is enough: on photographs of 3 and 12 megapixels its output differed by at most 5 of 255.
    """
    for step in getattr(transform, "transforms", [transform]):
        if isinstance(step, (v2.Resize, Resize)):
            return 2 * int(np.max(step.size or step.max_size))
        if not isinstance(step, (v2.PILToTensor, v2.ToImage)):
            break
    return None


def read_image(path: str | Path, min_side: int | None = None) -> Image.Image:
    """Read an image of any kind that Pillow knows, upright and in RGB; see `needed_side` for `min_side`.

    Raises:
        UserError: the file is missing, not an image, truncated, a decompression bomb, or narrower than 1:100.
    """
    try:
        return to_rgb(decode_image(path, min_side))
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise anything
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot read the image {path} ({reason}); replace or remove it") from error


def decode_image(path: str | Path, min_side: int | None) -> Image.Image:
    """Decode a file and rotate the image as its EXIF data says."""
    if not os.path.isfile(path):  # opening a pipe would block
        raise ValueError("not a file" if os.path.exists(path) else "no such file")
    with Image.open(path) as image:
        if min_side:
            image.draft(None, (min_side, min_side))  # has an effect on JPEG only
        image.load()
        try:
            image = ImageOps.exif_transpose(image)
        except Exception:
            logger.debug("%s: the EXIF data is damaged", path)
    if max(image.size) > 100 * min(image.size):  # resizing the short side would make it huge
        raise ValueError(f"{image.width} × {image.height} pixels, too narrow")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB: scale 16-bit and floating-point values, put transparency on white."""
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64)).clip(0)
        brightest = values.max()
        levels = [level for level in WHITE.get(image.mode, [65535]) if level >= brightest]
        white = min(levels, default=brightest)
        image = Image.fromarray((values * (255 / white)).round().astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")
