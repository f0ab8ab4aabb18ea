"""Example of a custom data set, to be changed. It reads one folder whose file names begin with the class.

The class of `daisy_001.jpg` or `red_rose_17.png` is what stands before the last underscore.
"""

from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from core.errors import UserError
from data.image_io import is_image, read_image
from data.splits import DatasetSplits


class MyDataset(Dataset):
    """Data set whose items are an RGB image of PIL and a label of int, which is all that is required.

    `targets` and `files` are optional: without them all items are read to find their labels, and they are numbered.
    """

    def __init__(self, data_dir: Path) -> None:
        if not data_dir.is_dir():
            raise UserError(f"there is no folder {data_dir}; expected are images such as daisy_001.jpg in it")
        self.data_dir = data_dir
        self.files = sorted(path.name for path in data_dir.iterdir() if is_image(path) and "_" in path.name)
        names = [file.rpartition("_")[0] for file in self.files]
        self.classes = sorted(set(names))
        self.targets = [self.classes.index(name) for name in names]
        if len(self.classes) < 2:
            found = f"{data_dir} holds images of {len(self.classes)} classes"
            raise UserError(f"{found}; at least two are needed, such as daisy_001.jpg and rose_17.png")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return read_image(self.data_dir / self.files[index]), self.targets[index]


def my_dataset(data_dir: Path) -> DatasetSplits:
    """Return a data set to be split in three; if you have separate ones for val or test, pass them instead of None."""
    dataset = MyDataset(data_dir)
    return DatasetSplits(dataset, None, None, dataset.classes)
