"""The loader beside the original's: the same photographs, the same imgaug list, 2 workers each, in turns.

python benchmarks/loader.py --data-dir PHOTOS [--width PIXELS] [--rounds 7]

`--data-dir` holds train/<class>/. The original's way: Pillow squashes each picture to 224 × 224, imgaug, float,
normalised. Ours: bytes, the short side scaled, a square cut out, imgaug; and the same with `--cache-images`.
`--width 4000` enlarges the photographs first, to the size in which a camera leaves them.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "template"), str(HERE)]


def enlarge(folder: Path, to: Path, width: int, n: int = 24) -> Path:
    """Copy n images of each class, scaled to a width of `width` pixels."""
    from PIL import Image

    for path in (
        file for name in folder.iterdir() if name.is_dir() for file in sorted(name.glob("*.jpg"))[:n]
    ):
        file = to / path.relative_to(folder)
        file.parent.mkdir(exist_ok=True)
        with Image.open(path) as image:
            size = (width, round(image.height * width / image.width))
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(file, quality=92)
    return to


def main() -> None:
    """Read all images in turns; print milliseconds per image and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--width", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    from data.image_cache import cache_part
    from data.imagefolder import class_folders, list_images
    from data.loaders import EpochSampler, make_loader
    from data.transformation import ImgAugTransform, short_side
    from peers import SIZE, original_augmenter, original_transforms

    folder = options.data_dir / "train"
    enlarged = tempfile.TemporaryDirectory()
    if options.width:
        folder = enlarge(folder, Path(enlarged.name), options.width)
    theirs = ImageFolder(folder, original_transforms()[0])
    augment = ImgAugTransform(original_augmenter())
    transform = v2.Compose([v2.PILToTensor(), v2.Resize(short_side(SIZE)), v2.RandomCrop(SIZE), augment])
    ours = list_images(folder, folder, class_folders(folder))
    cache = tempfile.TemporaryDirectory()
    datasets = {"ours": ours, "kept": cache_part(ours, transform, Path(cache.name))}
    loaders = {"original": DataLoader(theirs, 32, shuffle=True, num_workers=2, persistent_workers=True)}
    for name, dataset in datasets.items():
        sampler = EpochSampler(len(ours), 0)
        loaders[name] = make_loader(dataset, transform, ours.classes, sampler=sampler, num_workers=2)
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(options.rounds + 1):  # the first starts the workers
        for name, loader in loaders.items():
            begin = time.perf_counter()
            for _ in loader:
                pass
            times[name].append(1000 * (time.perf_counter() - begin) / len(ours))
    for name, found in times.items():
        print(f"{name:9} {statistics.median(found[1:]):.2f} ms a picture")
    for name in "ours", "kept":
        ratios = [a / b for a, b in zip(times["original"][1:], times[name][1:], strict=True)]
        print(
            f"original / {name} {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
