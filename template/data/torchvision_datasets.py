"""torchvision's data sets by name: downloaded the first time, the published test set left whole."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets

from core.errors import UserError, format_error
from data.splits import FRACTIONS, DatasetSplits, complete_splits


class TorchvisionDataset(Dataset):
    """One part of a torchvision data set, as the rest of the template expects it: pictures in RGB, labels as int."""

    def __init__(self, dataset: Dataset, part: str) -> None:
        """Takes the part over. `fixed_origin` says what it is: such pictures never change.

        Args:
            dataset: items are (PIL image, int).
            part: the name it was published under, such as "train".
        """
        self.dataset = dataset
        self.fixed_origin = f"{type(dataset).__name__} in {Path(dataset.root).resolve()}"
        targets = dataset.targets if hasattr(dataset, "targets") else dataset._labels
        self.targets = torch.as_tensor(targets).tolist()
        self.files = [f"{part}/{i}" for i in range(len(self.targets))]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """One picture and its label."""
        image, label = self.dataset[index]
        return image.convert("RGB"), int(label)


def published(
    build: Callable[..., Dataset],
    parts: dict[str, dict],
    folder: str,
    image_size: int,
    augmentation: str,
    data_dir: Path,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> DatasetSplits:
    """Reads one of torchvision's data sets. Without a published validation set a tenth of train becomes one.

    Args:
        build: the class in torchvision.
        parts: what it takes to build each part, by the part's name here.
        folder: below `data_dir`; where torchvision keeps the files.
        image_size: side in pixels that suits the pictures.
        augmentation: the one that suits them.
        data_dir: where the files are, or are downloaded to.
        fractions: unused; the sizes of the parts are given.
        seed: decides which tenth of train is for validation.

    Raises:
        UserError: the files are not there and cannot be downloaded.
    """
    read: dict[str, TorchvisionDataset] = {}
    for part, settings in parts.items():
        try:
            dataset = build(data_dir, **settings, download=True)  # torchvision downloads only what is missing
        except Exception as error:  # no network, a broken download, no permission to write
            for made in (data_dir / folder, (data_dir / folder).parent):
                if made != data_dir and made.is_dir() and not any(made.iterdir()):
                    made.rmdir()
            raise UserError(
                f"{build.__name__} is not in {data_dir / folder} and could not be downloaded ({format_error(error)}); "
                "put the published files there, or say with --data-dir where they are"
            ) from error
        read[part] = TorchvisionDataset(dataset, part)
    classes = getattr(dataset, "classes", None) or [str(i) for i in range(max(read["train"].targets) + 1)]
    train, val, test = complete_splits(read["train"], read.get("val"), read["test"], fractions, seed)
    return DatasetSplits(train, val, test, list(classes), image_size, augmentation)


FLAG = {"train": {"train": True}, "test": {"train": False}}
WORD = {"train": {"split": "train"}, "test": {"split": "test"}}
PETS = {"train": {"split": "trainval"}, "test": {"split": "test"}}
FLOWERS = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}

TORCHVISION_DATASETS: dict[str, partial[DatasetSplits]] = {
    "mnist": partial(published, datasets.MNIST, FLAG, "MNIST/raw", 28, "characters"),
    "kmnist": partial(published, datasets.KMNIST, FLAG, "KMNIST/raw", 28, "characters"),
    "fashion_mnist": partial(published, datasets.FashionMNIST, FLAG, "FashionMNIST/raw", 28, "small"),
    "cifar10": partial(published, datasets.CIFAR10, FLAG, "cifar-10-batches-py", 32, "small"),
    "cifar100": partial(published, datasets.CIFAR100, FLAG, "cifar-100-python", 32, "small"),
    "flowers102": partial(published, datasets.Flowers102, FLOWERS, "flowers-102", 224, "photographs"),
    "oxford_iiit_pet": partial(published, datasets.OxfordIIITPet, PETS, "oxford-iiit-pet", 224, "photographs"),
    "food101": partial(published, datasets.Food101, WORD, "food-101", 224, "photographs"),
}
