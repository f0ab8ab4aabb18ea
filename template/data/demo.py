"""The demo data set: two classes drawn by the template itself, so that nothing has to be downloaded.

A dark helmet with a red blade against a fair-haired hero with a blue or a green one. Each picture also holds the
other figure, and some of the same, in pieces, about as much of the one as of the other: colours do not give the class
away, and a network has to look at shapes.
"""

import errno
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from data.imagefolder import imagefolder
from data.splits import FRACTIONS, DatasetSplits

CLASSES = ("helmet", "hero")
IMAGES = {"train": 160, "val": 80}  # of each class; half of val becomes the test set
FOLDER = "demo-v1"  # in the project's cache: another name when the drawing changes, and nobody keeps the old pictures

Colour = tuple[int, int, int]


def demo(data_dir: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> DatasetSplits:
    """Draws the pictures into `data_dir` the first time, then reads them as an ImageFolder.

    Args:
        data_dir: where the pictures are kept, a folder of their own.
        fractions: the last two are the shares of val and test in `val/`.
        seed: decides which of its pictures become the test set.

    Returns:
        The three parts, at an image size of 96 px.
    """
    if not data_dir.exists():
        draw_demo(data_dir)
    return imagefolder(data_dir, fractions, seed, image_size=96)


def draw_demo(folder: Path, images: dict[str, int] | None = None, seed: int = 0) -> None:
    """Draws the data set as `folder/<split>/<class>/<number>.jpg`.

    Args:
        folder: must not exist yet; it appears at once, when the last picture is done.
        images: how many of each class in each split; the demo's own numbers by default.
        seed: another seed draws other pictures.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        for split, count in (images or IMAGES).items():
            for name in CLASSES:
                (unfinished / split / name).mkdir(parents=True)
                for i in range(count):
                    rng = random.Random(f"{seed} {split} {name} {i}")
                    draw_picture(name, rng).save(unfinished / split / name / f"{i:03}.jpg", quality=88)
        unfinished.chmod(0o755)  # a temporary folder is for its owner alone
        unfinished.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def draw_picture(name: str, rng: random.Random) -> Image.Image:
    """One picture of the class `name`: RGB, 120 to 200 px a side.

    Args:
        name: "helmet" or "hero".
        rng: everything that varies is drawn from it.
    """
    width, height = rng.randint(120, 200), rng.randint(120, 200)
    picture = background(width, height, rng)
    size = round(min(width, height) * rng.uniform(0.7, 0.95))
    figures = {"helmet": draw_helmet(size, rng), "hero": draw_hero(size, rng)}
    figure = figures.pop(name)
    rival = figures.popitem()[1]

    # As much of the one as of the other is seen, on average: the figure counts for 1, and hides some of what is strewn.
    for pieces, share in (figure, rng.uniform(0, 2.4)), (rival, rng.uniform(1.2, 3.2)):
        scatter(picture, pieces, rng, share)
    if rng.random() < 0.5:
        figure = figure.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    figure = figure.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC)
    spot = (rng.randint(-size // 8, width - size + size // 8), rng.randint(-size // 8, height - size + size // 8))
    picture.paste(figure, spot, figure)
    scatter(picture, rival, rng, share=rng.uniform(0, 0.2))  # in front of the figure
    light = [rng.uniform(0.7, 1.2) for _ in "RGB"]
    picture = picture.point([min(255, round(value * factor)) for factor in light for value in range(256)])
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))


def helmet_palette(rng: random.Random) -> dict[str, Colour]:
    """Colours of the parts: body, head, trim, blade."""
    dark = rng.randint(15, 45)
    return {
        "body": shade((dark, dark, dark + 6), rng),
        "head": shade((dark + 8, dark + 8, dark + 12), rng),
        "trim": shade((150, 150, 158), rng),
        "blade": shade((225, 30, 35), rng),
    }


def hero_palette(rng: random.Random) -> dict[str, Colour]:
    """Colours of the parts: body, head, trim, blade."""
    return {
        "body": shade(rng.choice([(222, 210, 184), (235, 232, 222), (190, 170, 135)]), rng),
        "head": shade((228, 184, 150), rng),
        "trim": shade((206, 168, 92), rng),
        "blade": shade(rng.choice([(45, 105, 235), (45, 205, 80)]), rng),
    }


def shade(colour: Colour, rng: random.Random) -> Colour:
    """The colour, a little lighter or darker."""
    change = rng.randint(-14, 14)
    red, green, blue = (min(255, max(0, value + change)) for value in colour)
    return red, green, blue


def background(width: int, height: int, rng: random.Random) -> Image.Image:
    """A slope between two colours, anything from night to snow."""
    ends = [tuple(rng.randint(0, 255) for _ in range(3)) for _ in range(2)]
    slope = Image.linear_gradient("L").rotate(rng.choice([0, 90, 180, 270])).resize((width, height))
    return Image.composite(*(Image.new("RGB", (width, height), end) for end in ends), slope)


def scatter(picture: Image.Image, figure: Image.Image, rng: random.Random, share: float, n: int = 5) -> None:
    """Cuts a figure into n × n tiles and strews them over the picture.

    Args:
        picture: drawn on in place.
        figure: RGBA.
        rng: which tiles, where and how turned.
        share: how many of the tiles; 2 strews each of them twice.
        n: tiles along a side.
    """
    tile = figure.width // n
    tiles = [(x * tile, y * tile) for x in range(n) for y in range(n)]
    for x, y in rng.choices(tiles, k=round(share * len(tiles))):
        piece = figure.crop((x, y, x + tile, y + tile)).rotate(
            rng.uniform(0, 360), Image.Resampling.BICUBIC, expand=True
        )
        spot = (rng.randint(-tile // 2, picture.width - tile), rng.randint(-tile // 2, picture.height - tile))
        picture.paste(piece, spot, piece)


def draw_helmet(size: int, rng: random.Random) -> Image.Image:
    """A cloak, a flared helmet with slanted eyes and a grille, a blade held high: RGBA, size × size."""
    palette, (draw, picture) = helmet_palette(rng), canvas(size)
    polygon(draw, [(0.18, 1.0), (0.32, 0.58), (0.68, 0.58), (0.82, 1.0)], palette["body"])
    polygon(draw, [(0.30, 0.28), (0.70, 0.28), (0.80, 0.62), (0.20, 0.62)], palette["head"])
    ellipse(draw, 0.30, 0.08, 0.70, 0.50, palette["head"])
    polygon(draw, [(0.35, 0.34), (0.48, 0.39), (0.47, 0.45), (0.36, 0.42)], palette["trim"])
    polygon(draw, [(0.65, 0.34), (0.52, 0.39), (0.53, 0.45), (0.64, 0.42)], palette["trim"])
    polygon(draw, [(0.50, 0.44), (0.60, 0.59), (0.40, 0.59)], palette["trim"])
    for x in (0.46, 0.50, 0.54):
        draw.line([(x * 2 * size, 0.53 * 2 * size), (x * 2 * size, 0.59 * 2 * size)], palette["head"], size // 40)
    draw.rectangle([0.42 * 2 * size, 0.70 * 2 * size, 0.58 * 2 * size, 0.78 * 2 * size], palette["trim"])
    blade(draw, size, palette["blade"], rng)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def draw_hero(size: int, rng: random.Random) -> Image.Image:
    """A tunic with a collar, a bare face under a mop of hair, a blade held high: RGBA, size × size."""
    palette, (draw, picture) = hero_palette(rng), canvas(size)
    dark = (60, 45, 40)
    polygon(draw, [(0.18, 1.0), (0.32, 0.58), (0.68, 0.58), (0.82, 1.0)], palette["body"])
    polygon(draw, [(0.40, 0.58), (0.60, 0.58), (0.50, 0.78)], palette["head"])
    ellipse(draw, 0.32, 0.10, 0.68, 0.46, palette["trim"])
    draw.rectangle([0.32 * 2 * size, 0.28 * 2 * size, 0.68 * 2 * size, 0.44 * 2 * size], palette["trim"])
    ellipse(draw, 0.36, 0.20, 0.64, 0.60, palette["head"])
    polygon(draw, [(0.34, 0.30), (0.40, 0.14), (0.62, 0.14), (0.66, 0.28), (0.52, 0.22)], palette["trim"])
    for x in (0.44, 0.56):
        ellipse(draw, x - 0.022, 0.36, x + 0.022, 0.404, dark)
    draw.arc([0.45 * 2 * size, 0.44 * 2 * size, 0.55 * 2 * size, 0.52 * 2 * size], 20, 160, dark, max(1, size // 40))
    blade(draw, size, palette["blade"], rng)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def canvas(size: int) -> tuple[ImageDraw.ImageDraw, Image.Image]:
    """A transparent square, twice as large as needed: made smaller afterwards, its edges come out smooth."""
    picture = Image.new("RGBA", (2 * size, 2 * size), (0, 0, 0, 0))
    return ImageDraw.Draw(picture), picture


def polygon(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: Colour) -> None:
    """Fills a polygon given in fractions of the canvas."""
    side = draw.im.size[0]
    draw.polygon([(x * side, y * side) for x, y in points], colour)


def ellipse(draw: ImageDraw.ImageDraw, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Fills an ellipse given in fractions of the canvas."""
    side = draw.im.size[0]
    draw.ellipse([x0 * side, y0 * side, x1 * side, y1 * side], colour)


def blade(draw: ImageDraw.ImageDraw, size: int, colour: Colour, rng: random.Random) -> None:
    """A glowing blade from the hand at the right, a bright core within its colour."""
    side = 2 * size
    hand, tip = (0.80 * side, 0.80 * side), (rng.uniform(0.74, 0.97) * side, rng.uniform(0.02, 0.25) * side)
    draw.line([hand, tip], colour, max(2, round(0.055 * side)))
    draw.line([hand, tip], tuple(min(255, value + 120) for value in colour), max(1, round(0.018 * side)))
