"""Demo data set, drawn by the template: two classes that differ in shape alone.

Colours and background are random, and parts of both figures are scattered over every image.
"""

import random
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data.imagefolder import imagefolder
from data.splits import DatasetSplits

FOLDER = "demo-v2"  # in the project's cache; another name for another drawing
IMAGES = {"train": 160, "val": 80}  # of each class; half of val becomes the test set

# Polygons of each part in percent of the figure: x,y x,y … as in SVG.
BODY = "18,100 32,58 68,58 82,100"
BLADE = "84,84 80,82 88,2 92,4"
FIGURES = {
    "helmet": {
        "body": [BODY],
        "head": ["20,62 30,28 38,12 50,8 62,12 70,28 80,62"],
        "face": ["35,34 48,39 47,45 36,42", "65,34 52,39 53,45 64,42", "50,44 60,59 40,59"],
        "blade": [BLADE],
    },
    "hero": {
        "body": [BODY],
        "hair": ["30,50 28,24 38,12 50,8 62,12 72,24 70,50"],
        "head": ["35,30 46,22 65,28 65,48 56,62 44,62 35,48", "40,58 60,58 50,78"],
        "face": ["39,33 47,33 47,41 39,41", "53,33 61,33 61,41 53,41", "42,49 58,49 53,56 47,56"],
        "blade": [BLADE],
    },
}
DARK = ("black", "dimgrey", "crimson", "royalblue", "seagreen", "sienna")
LIGHT = ("white", "gold", "tan", "skyblue", "orchid", "salmon")
COLOURS = {"body": DARK, "hair": DARK, "head": LIGHT, "face": ("black",), "blade": LIGHT}


def demo(data_dir: Path) -> DatasetSplits:
    """Read the demo; draw it first if `data_dir`, a folder of its own, does not exist."""
    if not data_dir.exists():
        draw_demo(data_dir)
    return replace(imagefolder(data_dir), image_size=96)


def draw_demo(folder: Path, images: dict[str, int] | None = None, seed: int = 0) -> None:
    """Draw some images of each class, by split, in `folder/<split>/<class>/`; `folder` appears when all are drawn."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=folder.name + ".", dir=folder.parent) as temporary:
        unfinished = Path(temporary, folder.name)
        for split, count in (images or IMAGES).items():
            for name in FIGURES:
                (unfinished / split / name).mkdir(parents=True)
                for i in range(count):
                    image = draw_image(name, random.Random(f"{seed} {split} {name} {i}"))
                    image.save(unfinished / split / name / f"{i:03}.jpg", quality=88)
        with suppress(OSError):  # another process was faster
            unfinished.rename(folder)


def draw_image(name: str, rng: random.Random) -> Image.Image:
    """Draw an RGB image of a class, 120 to 200 px a side."""
    size = (2 * rng.randint(120, 200), 2 * rng.randint(120, 200))
    image = Image.new("RGB", size, rng.choice(DARK + LIGHT))
    for _ in range(10):
        figure = FIGURES[rng.choice(list(FIGURES))]
        part = rng.choice(list(figure))
        draw_figure(image, {part: figure[part]}, rng, max_angle=180)
    draw_figure(image, FIGURES[name], rng, max_angle=20)
    return image.reduce(2)  # smooth edges


def draw_figure(
    image: Image.Image, figure: dict[str, list[str]], rng: random.Random, max_angle: float
) -> None:
    """Draw a figure at a random place and size, rotated, perhaps mirrored, its parts in random colours."""
    draw = ImageDraw.Draw(image)
    side = min(image.size) * rng.uniform(0.7, 0.95)
    centre = [rng.uniform(0.4 * side, length - 0.4 * side) for length in image.size]
    angle = np.deg2rad(rng.uniform(-max_angle, max_angle))
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = [[cos, sin], [-sin, cos]]
    mirror = [rng.choice((-1, 1)), 1]
    for part, polygons in figure.items():
        colour = rng.choice(COLOURS[part])
        for polygon in polygons:
            points = np.array(polygon.replace(",", " ").split(), float).reshape(-1, 2)
            points = (points / 100 - 0.5) * mirror @ rotation * side + centre
            draw.polygon(points.flatten().tolist(), colour)
