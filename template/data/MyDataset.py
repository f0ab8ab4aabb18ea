"""A data set of your own: change this file. As it stands it reads one folder whose file names hold the label.

`<data_dir>/daisy_001.jpg`, `<data_dir>/rose_17.png` … : the class is what comes before the last underscore.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from core.errors import UserError
from data.image_io import is_image, read_image
from data.splits import FRACTIONS, DatasetSplits, complete_splits


class MyDataset(Dataset):
    """Items are (picture, label): a PIL image in RGB and an int. This is all that the rest of the template asks for.

    Attributes:
        classes: names of the classes, by label.
        targets: the label of each item; without it the items are read one by one to find out.
        files: the name of each item; without it they are numbered.
    """

    def __init__(self, data_dir: Path) -> None:
        """Lists the pictures; none is read yet.

        Args:
            data_dir: the folder that holds them.

        Raises:
            UserError: no folder, or fewer than two classes in it.
        """
        if not data_dir.is_dir():
            raise UserError(f"there is no folder {data_dir}; expected are pictures such as daisy_001.jpg in it")
        self.data_dir = data_dir
        self.files = sorted(path.name for path in data_dir.iterdir() if is_image(path) and "_" in path.name)
        names = [file.rpartition("_")[0] for file in self.files]
        self.classes = sorted(set(names))
        self.targets = [self.classes.index(name) for name in names]
        if len(self.classes) < 2:
            raise UserError(
                f"{data_dir} holds {len(self.classes)} class(es); at least two, as in daisy_001.jpg, are needed"
            )

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """One picture and its label."""
        return read_image(self.data_dir / self.files[index]), self.targets[index]


def my_dataset(data_dir: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> DatasetSplits:
    """All three parts from the one folder; where you have a test set of your own, it takes the place of the None."""
    dataset = MyDataset(Path(data_dir))
    train, val, test = complete_splits(dataset, None, None, fractions, seed)
    return DatasetSplits(train, val, test, dataset.classes)
