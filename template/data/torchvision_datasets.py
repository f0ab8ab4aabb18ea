"""Data sets of torchvision, downloaded if they are missing. The published test set is left whole."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets

from core.errors import UserError, format_error
from data.splits import DatasetSplits


class TorchvisionDataset(Dataset):
    """One split of a data set of torchvision, with RGB images."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset = dataset
        # its images never change
        self.fixed_origin = f"{type(dataset).__name__} in {Path(dataset.root).resolve()}"
        targets = dataset.targets if hasattr(dataset, "targets") else dataset._labels
        self.targets = torch.as_tensor(targets).tolist()
        self.files = [f"{split}/{i}" for i in range(len(self.targets))]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = self.dataset[index]
        return image.convert("RGB"), int(label)


@dataclass(frozen=True)
class TorchvisionSource:
    """Entry of `DATASETS` that reads a data set of torchvision when it is called."""

    dataset_class: type[Dataset]
    # arguments of dataset_class for each split; without val, a tenth of train becomes val
    splits: dict[str, dict]
    folder: str  # of torchvision's files, relative to data_dir
    image_size: int  # default side in pixels
    augmentation: str  # default

    def __call__(self, data_dir: Path) -> DatasetSplits:
        parts = {split: self.read(data_dir, split) for split in self.splits}
        train, val, test = parts["train"], parts.get("val"), parts["test"]
        return DatasetSplits(
            train, val, test, list(train.dataset.classes), self.image_size, self.augmentation
        )

    def read(self, data_dir: Path, split: str) -> TorchvisionDataset:
        folder = data_dir / self.folder
        try:
            dataset = self.dataset_class(data_dir, **self.splits[split], download=True)  # if it is missing
        except Exception as error:  # no network, a broken download, no permission to write
            found = f"{self.dataset_class.__name__} is not in {folder} and could not be downloaded"
            advice = "put the published files there, or give their folder with --data-dir"
            raise UserError(f"{found} ({format_error(error)}); {advice}") from error
        return TorchvisionDataset(dataset, split)


FLAG = {"train": {"train": True}, "test": {"train": False}}
SPLIT = {"train": {"split": "train"}, "test": {"split": "test"}}
PETS = {"train": {"split": "trainval"}, "test": {"split": "test"}}
FLOWERS = {**SPLIT, "val": {"split": "val"}}

TORCHVISION_DATASETS = {
    "mnist": TorchvisionSource(datasets.MNIST, FLAG, "MNIST/raw", 28, "characters"),
    "kmnist": TorchvisionSource(datasets.KMNIST, FLAG, "KMNIST/raw", 28, "characters"),
    "fashion_mnist": TorchvisionSource(datasets.FashionMNIST, FLAG, "FashionMNIST/raw", 28, "small"),
    "cifar10": TorchvisionSource(datasets.CIFAR10, FLAG, "cifar-10-batches-py", 32, "small"),
    "cifar100": TorchvisionSource(datasets.CIFAR100, FLAG, "cifar-100-python", 32, "small"),
    "flowers102": TorchvisionSource(datasets.Flowers102, FLOWERS, "flowers-102", 224, "photographs"),
    "oxford_iiit_pet": TorchvisionSource(datasets.OxfordIIITPet, PETS, "oxford-iiit-pet", 224, "photographs"),
    "food101": TorchvisionSource(datasets.Food101, SPLIT, "food-101", 224, "photographs"),
}
