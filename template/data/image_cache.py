"""Pictures decoded and scaled once, for trainings that see them in every epoch: `--keep-pictures`."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import v2

from core.environment import versions
from core.errors import UserError
from core.files import replacing
from data import image_io as images
from data.duplicates import digest, sources_of
from data.splits import labels

SPARE = 2**30  # bytes of the disk that are left to others


class Kept(Subset):
    """All of a data set; its pictures are scaled already, where a file of their own holds them so.

    The transform, which begins with that, finds nothing left to do then and gives what it would have given.
    """

    def __init__(self, dataset: Dataset, scale: v2.Transform, files: Sequence[Path]) -> None:
        """Nothing is read yet.

        Args:
            dataset: pictures and labels.
            scale: picture → tensor (3, H, W) of uint8.
            files: where each picture is kept.
        """
        super().__init__(dataset, range(len(dataset)))
        self.scale, self.files, self.targets = scale, files, labels(dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor]:
        """The scaled picture and its label; what is not there yet is read, and kept if there is room for it."""
        target = self.targets[index]
        try:
            pixels = np.load(self.files[index])
        except (OSError, ValueError, EOFError):
            with images.no_larger_than_needed(self.scale):
                pixels = self.scale(self.dataset[index][0]).permute(1, 2, 0).numpy()  # in which order OpenCV wants them
            self.keep(self.files[index], pixels)
        return torch.from_numpy(pixels).permute(2, 0, 1), target if isinstance(target, int) else torch.tensor(target)

    def keep(self, path: Path, pixels: np.ndarray) -> None:
        """Writes a file, unless the disk is about to be full: a run needs room for more important ones."""
        with suppress(OSError):
            if shutil.disk_usage(path.parent).free > SPARE:
                with replacing(path, "wb") as file:
                    np.save(file, pixels)

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int | torch.Tensor]]:
        """Several; a Subset would ask the data set itself."""
        return [self[i] for i in indices]


def keep_pictures(folder: Path | None, cache_dir: Path, *loaders: DataLoader) -> None:
    """From now on these loaders keep what they have read, in `pictures/` below the cache.

    A picture is known by its file, size and time, so one that has changed is read again.

    Args:
        folder: of the data set, see `Data`.
        cache_dir: of the project.
        loaders: nothing has been read from them yet.

    Raises:
        UserError: nobody knows when a picture of this data set changes; or the transform does not begin by scaling.
    """
    for loader in loaders:
        view = loader.dataset
        steps = getattr(view.transform, "transforms", [])[:2]
        expected = [v2.PILToTensor, v2.Resize]
        if len(steps) < 2 or not all(map(isinstance, steps, expected)):
            raise UserError("--keep-pictures needs transforms that begin with v2.PILToTensor() and v2.Resize(…)")
        sources = sources_of(view.dataset, folder)
        if None in sources:
            raise UserError("--keep-pictures: what this data set makes of its files may change; leave it out")
        origin = digest(steps, Path(images.__file__).read_bytes(), versions("torchvision", "pillow"))
        store = cache_dir / "pictures" / origin.hex()
        store.mkdir(parents=True, exist_ok=True)
        files = [store / f"{digest(source).hex()}.npy" for source in sources]
        view.dataset = Kept(view.dataset, v2.Compose(steps), files)
