"""Reading pictures: every kind that cameras, scanners and the web produce comes out as the same upright RGB."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.auto import tqdm

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


def check_images(datasets: Iterable[Dataset]) -> None:
    """Reads every picture once, so that a broken one is found before the training and not hours into it.

    Args:
        datasets: the parts of a data set; each item is (picture, label).

    Raises:
        UserError: names the first picture that cannot be read, and says how many there are.
    """

    def problem(key: tuple[Dataset, int]) -> UserError | None:
        dataset, index = key
        try:
            dataset[index]
        except UserError as error:
            return error
        return None

    keys = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    with ThreadPoolExecutor() as pool:  # Pillow decodes without holding the interpreter's lock
        found = tqdm(
            pool.map(problem, keys), "reading images", len(keys), leave=False, dynamic_ncols=True, disable=None
        )
        problems = [error for error in found if error]
    if problems:
        others = f" ({len(problems) - 1} more cannot be read)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{others}")
