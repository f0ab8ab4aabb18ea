"""The example of a custom data set."""

import shutil

import pytest
from PIL import Image

from data import get_data
from data.check import inspect_images
from data.MyDataset import MyDataset
from data.splits import get_file_names


def test_my_dataset_reads_labels_from_file_names(tmp_path):
    for i in range(20):
        name = "red_rose" if i % 2 else "daisy"
        Image.new("RGB", (40, 40), "red").save(tmp_path / f"{name}_{i}.png")
    data = get_data("my_dataset", tmp_path)
    assert data.classes == ["daisy", "red_rose"]
    assert [len(part) for part in (data.train, data.val, data.test)] == [14, 3, 3]
    image, label = data.train[0]
    assert image.mode == "RGB"
    assert data.classes[label] == get_file_names(data.train)[0].rpartition("_")[0]


def test_images_of_a_custom_data_set_are_not_cached(photos, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in (photos / "train").rglob("*.jpg"):
        shutil.copy(path, mine / f"{path.parent.name}_{path.name}")
    before = inspect_images(get_data("my_dataset", mine), tmp_path / "cache")
    found = get_data("my_dataset", mine)
    for part in found.train, found.val, found.test:
        dataset = part.dataset
        dataset.__class__ = type("Darker", (type(dataset),), {"__getitem__": darker})
    assert inspect_images(found, tmp_path / "cache").mean == pytest.approx(
        [m / 2 for m in before.mean], abs=0.01
    )


def darker(self, index):
    """An image of half the brightness."""
    image, label = MyDataset.__getitem__(self, index)
    return image.point(lambda value: value // 2), label
