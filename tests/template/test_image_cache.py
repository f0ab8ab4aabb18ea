"""Cached images: training is the same to the bit, images are read once, and the cache is never stale."""

import csv
import os
import shutil

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import v2

from config import Config
from core.errors import UserError
from data import get_data, get_loaders, get_transforms
from data.image_cache import cache_images, cache_part
from data.image_io import read_image
from data.transformation import RESIZES


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the images that were decoded; grows."""
    names: list[str] = []

    def spy(path, *options):
        names.append(os.path.basename(path))
        return read_image(path, *options)

    monkeypatch.setattr("data.image_dataset.read_image", spy)
    return names


@pytest.fixture
def loaders(photos, tmp_path):
    """Loaders over a copy of the demo that cache its images; each call is another training."""
    folder = tmp_path / "copy"
    shutil.copytree(photos, folder)

    def call(**options):
        found = get_data("imagefolder", folder)
        config = Config(
            cache_images=True, image_size=32, augmentation="photographs", num_workers=0, **options
        )
        train_dl, val_dl, _ = get_loaders(config, cache_images(config, found, tmp_path / "cache"))
        return train_dl, val_dl

    call.folder = folder
    call.store = tmp_path / "cache" / "images"
    return call


def test_the_training_is_the_same_to_the_bit(train):
    def log_of(run) -> list[list[str]]:
        return [[row[name] for name in row if "time" not in name] for row in csv.DictReader(run.log.open())]

    plain = log_of(train(run_name="plain"))
    assert log_of(train(run_name="cached", cache_images=True)) == plain
    assert log_of(train(run_name="again", cache_images=True, num_workers=2)) == plain


@pytest.mark.parametrize("resize", RESIZES)
def test_the_views_are_the_same_however_an_image_becomes_a_square(resize, tmp_path):
    for i, size in enumerate([(2400, 600), (300, 100), (50, 70), (64, 64)] * 2):
        file = tmp_path / ("train" if i < 4 else "val") / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 60).convert("RGB").save(file)

    def views(cached: bool) -> list[torch.Tensor]:
        config = Config(
            cache_images=True, image_size=32, augmentation="photographs", resize=resize, num_workers=0
        )
        data = get_data("imagefolder", tmp_path)
        if cached:
            data = cache_images(config, data, tmp_path / "cache")
        train_dl, val_dl, _ = get_loaders(config, data)
        return [images for dl in (train_dl, val_dl) for images, _ in dl]

    plain = views(cached=False)
    for _ in range(2):  # cached, and read again
        for images, same in zip(plain, views(cached=True), strict=True):
            assert torch.equal(images, same)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 4 + 2


def test_each_image_is_decoded_once(loaders, read):
    train_dl, val_dl = loaders()
    for _ in range(3):
        assert sum(len(labels) for _, labels in train_dl) == 24
    assert len(read) == 24
    list(val_dl)
    assert len(read) == 24 + 8
    train_dl, val_dl = loaders(seed=1)
    list(train_dl), list(val_dl)
    assert len(read) == 24 + 8  # neither does the next training decode one


def test_only_an_image_that_has_changed_is_decoded_again(loaders, read):
    list(loaders()[0])
    read.clear()
    file = loaders.folder / "train" / "hero" / "003.jpg"
    shutil.copy(loaders.folder / "train" / "hero" / "004.jpg", file)
    list(loaders()[0])
    assert read == ["003.jpg"]


def test_a_damaged_or_uncached_image_is_decoded_again(loaders, read, monkeypatch):
    list(loaders()[0])
    for number, file in enumerate(sorted(loaders.store.rglob("*.npy"))[:3]):
        file.write_bytes(file.read_bytes()[: 200 * number])
    read.clear()
    list(loaders()[0])
    assert len(read) == 3

    def full(file, _):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    shutil.rmtree(loaders.store)
    for where, what in ("data.image_cache.np.save", full), ("data.image_cache.MIN_FREE_SPACE", 2**62):
        monkeypatch.setattr(where, what)
        train_dl, _ = loaders()
        assert [len(labels) for _, labels in train_dl] == [24]
        assert not [file for file in loaders.store.rglob("*") if file.is_file()]


def test_a_data_set_that_may_change_is_refused(photos, tmp_path):
    class Own(Dataset):
        targets = (0, 1)

        def __len__(self) -> int:
            return 2

    _, val = get_transforms(32)
    with pytest.raises(UserError, match="may change"):
        cache_part(Own(), val, tmp_path)
    own = v2.Compose([v2.RandomCrop(32), v2.PILToTensor()])
    with pytest.raises(UserError, match="begin with"):
        cache_part(Own(), own, tmp_path)
