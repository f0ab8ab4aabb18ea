"""Reading pictures: every kind that cameras, scanners and the web produce comes out as the same upright RGB."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import Resize, v2

from core.errors import UserError, brief

logger = logging.getLogger(__name__)

# The short and the long side in pixels, see `no_larger_than_needed`.
needed_sides = ContextVar[tuple[int, int] | None]("needed_sides", default=None)


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


@contextmanager
def no_larger_than_needed(transform: Callable[[Image.Image], Any]) -> Iterator[None]:
    """Within this context `read_image(draft=True)` decodes large JPEGs at half, a quarter or an eighth of their size.

    That is several times faster. It is never below twice the size that the transform scales them to, and only if it
    begins with that. On photographs of 3 and 12 megapixels what comes out differed by 5 of 255 at most (54 dB).

    Args:
        transform: what the picture will go through.
    """
    steps = getattr(transform, "transforms", [transform])
    first = next((step for step in steps if not isinstance(step, (v2.PILToTensor, v2.ToImage))), None)
    sides = None
    if isinstance(first, (v2.Resize, Resize)):
        side = 2 * int(np.max(first.size or first.max_size))
        sides = (side if first.size else 1, side)  # without a size it is the long side alone that is scaled to max_size
    before = needed_sides.set(sides)
    try:
        yield
    finally:
        needed_sides.reset(before)


def read_image(path: str | Path, draft: bool = False) -> Image.Image:
    """Reads one picture: upright as its EXIF says, transparency on white, 16-bit and floating-point grey scaled to 8.

    Args:
        path: any file that Pillow reads; grey, palette and CMYK pictures too.
        draft: whether the picture goes straight into a transform, so that it may be no larger than that needs; see
            `no_larger_than_needed`. Whoever counts in pixels needs all of it.

    Returns:
        The picture, mode RGB.

    Raises:
        UserError: it is missing, no picture, cut short, larger than Pillow's limit for decompression bombs, or so
            narrow that it would become one when its short side is scaled.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"cannot read the image {path} (it is no file); replace or remove it")
    try:
        with Image.open(path) as image:
            if draft and (sides := needed_sides.get()):
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
        raise UserError(f"cannot read the image {path} ({reason or brief(error)}); replace or remove it") from error
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


class Images(Dataset):
    """Files as a network takes them; one that cannot be read is told of, and stops nothing."""

    def __init__(self, files: Sequence[Path], transform: Callable[[Image.Image], Any]) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        """The number of a file, and its transformed picture or what is wrong with it."""
        try:
            with no_larger_than_needed(self.transform):
                return index, self.transform(read_image(self.files[index], draft=True))
        except UserError as error:
            return index, str(error)
