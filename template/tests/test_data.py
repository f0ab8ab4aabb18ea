"""Reading images, splits, and error messages that name what is missing."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset
from torchvision.transforms import v2

from core.errors import UserError
from data import DatasetSplits, get_data, get_dataloaders
from data.demo import draw_demo
from data.image_dataset import ImageDataset, UnlabelledImages, image_sources
from data.image_io import needed_side, read_image
from data.loaders import TransformedDataset
from data.splits import check_problems, get_file_names, get_labels, restore_split, stratified_split
from data.transformation import get_transforms


def corner(image: Image.Image) -> tuple[int, ...]:
    """Return the pixel at the top left."""
    return image.getpixel((1, 1))


def test_every_kind_of_image_becomes_upright_rgb(tmp_path):
    red = Image.new("RGB", (40, 30), (200, 30, 40))
    red.save(tmp_path / "rgb.png")
    red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    red.quantize(8).save(tmp_path / "palette.png")
    red.convert("L").save(tmp_path / "grey.png")
    clear = red.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    Image.fromarray(np.full((30, 40), 257 * 100, dtype=np.uint16)).save(tmp_path / "deep.png")
    for name, value, dtype in ("float share", 0.2, "f4"), ("float byte", 51, "f4"), ("integers", 51, "i4"):
        Image.fromarray(np.full((30, 40), value, dtype)).save(tmp_path / f"{name}.tiff")
    turned = Image.new("RGB", (40, 30), "black")
    turned.paste("white", (0, 0, 10, 30))  # white at the left; turned by EXIF it is at the top
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned ünï 写真.jpg", exif=exif, quality=98)

    images = {path.stem.removesuffix(" ünï 写真"): read_image(path) for path in tmp_path.iterdir()}
    assert {image.mode for image in images.values()} == {"RGB"}
    for name in ("rgb", "cmyk", "palette"):
        assert np.allclose(corner(images[name]), (200, 30, 40), atol=12), name
    assert len(set(corner(images["grey"]))) == 1
    assert corner(images["clear"]) == (255, 255, 255)
    assert corner(images["deep"]) == (100, 100, 100)
    for name in ("float share", "float byte", "integers"):
        assert corner(images[name]) == (51, 51, 51), name
    assert images["turned"].size == (30, 40)
    assert corner(images["turned"])[0] > 200
    assert images["turned"].getpixel((15, 38))[0] < 60


def test_large_photographs_are_decoded_no_larger_than_needed(tmp_path):
    grain = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    large = Image.fromarray(grain).resize((1600, 1200), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95, exif=exif)
    train, val = get_transforms(112)  # the short side becomes 128
    whole = read_image(tmp_path / "large.jpg")
    assert whole.size == (1200, 1600)
    smaller = read_image(tmp_path / "large.jpg", needed_side(val))
    assert smaller.size == (300, 400)
    assert (val(smaller).int() - val(whole).int()).abs().max() <= 5
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "large.jpg").read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"cut\.jpg"):
        read_image(tmp_path / "cut.jpg", needed_side(train))
    cuts_first = v2.Compose([v2.RandomCrop(112), v2.Resize(64)])
    assert read_image(tmp_path / "large.jpg", needed_side(cuts_first)).size == (1200, 1600)


def test_training_and_prediction_decode_large_photographs_alike(tmp_path):
    for split, name in ("train", "a"), ("train", "b"), ("val", "a"), ("val", "b"), ("val", "a"), ("val", "b"):
        file = tmp_path / split / name / f"{len(list(tmp_path.rglob('*.jpg')))}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((1200, 900), 60).convert("RGB").save(file)
    _, val = get_transforms(64)
    _, val_dl, _ = get_dataloaders(tmp_path / "train", tmp_path / "val", val_transform=val, num_workers=0)
    files = [tmp_path / name for name in get_file_names(val_dl.dataset.dataset)]
    for i, image in enumerate(next(iter(val_dl))[0]):
        assert torch.equal(UnlabelledImages(files, val)[i][1], image), files[i]
        assert not torch.equal(val(read_image(files[i])), image)


def test_only_image_datasets_are_cached_by_file_and_decoded_smaller(tmp_path):
    class Override(ImageDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image.crop((0, 0, 300, 300)), label

    class Reader(ImageDataset):
        def read(self, index, min_side=None):
            image, label = super().read(index, min_side)
            return image.crop((0, 0, 300, 300)), label

    for i in range(4):
        Image.effect_noise((1200, 900), 60).convert("RGB").save(tmp_path / f"{i}.jpg")
    _, val = get_transforms(64)
    for kind in ImageDataset, Override, Reader:
        dataset = kind(tmp_path, [f"{i}.jpg" for i in range(4)], [0, 1, 0, 1], ["a", "b"])
        joined = ConcatDataset([Subset(dataset, [2, 3]), Subset(dataset, [0])])
        seen = TransformedDataset(Subset(joined, [2, 1]), val, ["a", "b"])
        for i, original in enumerate([0, 3]):
            image, label = seen[i]
            whole, expected = dataset[original]
            assert label == expected
            assert torch.equal(image, val(whole)) == (kind is not ImageDataset)
            assert (image.int() - val(whole).int()).abs().max() < 40  # of the same image
        assert (None in image_sources(seen.dataset)) == (kind is not ImageDataset)
        assert torch.equal(TransformedDataset(joined, val, [])[-1][0], seen[0][0])


def broken_copy(photos: Path, to: Path) -> Path:
    """Return a copy of the data that may be damaged."""
    shutil.copytree(photos, to)
    return to


def test_truncated_images_are_named(photos, tmp_path):
    folder = broken_copy(photos, tmp_path / "data")
    victim = folder / "val" / "hero" / "003.jpg"
    victim.write_bytes(victim.read_bytes()[:1500])
    with pytest.raises(UserError, match=r"003\.jpg"):
        read_image(victim)


def test_a_broken_image_in_a_worker_is_still_one_line(photos, tmp_path):
    folder = broken_copy(photos, tmp_path / "data")
    (folder / "train" / "hero" / "000.jpg").write_bytes(b"")
    train_dl, _, _ = get_dataloaders(
        folder / "train", folder / "val", num_workers=1, persistent_workers=False
    )
    with pytest.raises(UserError) as caught:
        list(train_dl)
    assert str(caught.value).startswith("cannot read the image")
    assert "000.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_with_damaged_exif_data_is_read(tmp_path, monkeypatch):
    import struct

    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.jpg")

    def spoiled(image):
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr("data.image_io.ImageOps.exif_transpose", spoiled)
    assert read_image(tmp_path / "a.jpg").size == (30, 20)


def test_a_decompression_bomb_is_refused_by_name(tmp_path, monkeypatch):
    Image.new("L", (300, 300)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(UserError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")


def test_folders_that_will_not_do_are_named(photos, tmp_path):
    with pytest.raises(UserError, match="no folder"):
        get_data("imagefolder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in .*empty"):
        get_data("imagefolder", tmp_path / "empty")

    folder = broken_copy(photos, tmp_path / "missing in val")
    shutil.rmtree(folder / "val" / "helmet")
    with pytest.raises(UserError, match="'helmet' has no image in .*val"):
        check_problems(get_data("imagefolder", folder))
    with pytest.raises(UserError, match="'helmet' has no image in .*val"):
        get_dataloaders(folder / "train", folder / "val")

    folder = broken_copy(photos, tmp_path / "class without image")
    for path in (folder / "train" / "hero").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="'hero' has no image in .*train"):
        check_problems(get_data("imagefolder", folder))

    folder = broken_copy(photos, tmp_path / "one class")
    for split in ("train", "val"):
        shutil.rmtree(folder / split / "hero")
    with pytest.raises(UserError, match="only one class"):
        get_data("imagefolder", folder)

    shutil.rmtree(folder / "val")
    with pytest.raises(UserError, match="no folder .*val"):
        get_data("imagefolder", folder)


def test_files_that_are_not_images_are_ignored_and_logged(photos, tmp_path, caplog):
    folder = broken_copy(photos, tmp_path / "data")
    (folder / "train" / "hero" / "notes.txt").write_text("hello")
    (folder / "train" / "hero" / "._001.jpg").write_text("hidden")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    data = get_data("imagefolder", folder)
    assert data.classes == ["helmet", "hero"]
    assert len(data.train) == 24
    assert "notes.txt" in caplog.text
    assert "._001" not in caplog.text


def test_val_is_split_in_two_stratified_and_by_seed(photos):
    data = get_data("imagefolder", photos)
    val, test = get_file_names(data.val), get_file_names(data.test)
    assert sorted(val + test) == sorted(f"val/{c}/{i:03}.jpg" for c in ("helmet", "hero") for i in range(8))
    assert (
        get_labels(data.val).count(0) == get_labels(data.val).count(1) == get_labels(data.test).count(0) == 4
    )
    torch.manual_seed(99)  # whatever state torch's own generator is in
    assert get_file_names(get_data("imagefolder", photos).test) == test
    assert get_file_names(get_data("imagefolder", photos, seed=1).test) != test


def test_a_test_folder_is_not_split(photos, tmp_path):
    folder = broken_copy(photos, tmp_path / "data")
    shutil.copytree(folder / "val", folder / "test")
    data = get_data("imagefolder", folder)
    assert (len(data.val), len(data.test)) == (16, 16)
    assert all(name.startswith("test/") for name in get_file_names(data.test))


def test_one_folder_of_classes_is_split_in_three(photos, tmp_path):
    folder = Path(shutil.copytree(photos / "train", tmp_path / "plain"))
    data = get_data("imagefolder", folder)
    for part, share in (data.train, 0.7), (data.val, 0.15), (data.test, 0.15):
        for label in (0, 1):
            assert abs(get_labels(part).count(label) - 12 * share) <= 1
    names = [name for part in (data.train, data.val, data.test) for name in get_file_names(part)]
    assert sorted(names) == sorted(f"{c}/{i:03}.jpg" for c in ("helmet", "hero") for i in range(12))
    assert get_file_names(get_data("imagefolder", folder, seed=1).test) != get_file_names(data.test)


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.7, 0.15, 0.15), (0.1, 0.9)])
def test_a_split_holds_each_item_once_and_each_class_in_its_share(fractions):
    class Labels(torch.utils.data.Dataset):
        targets = [0] * 100 + [1] * 40 + [2] * 20

        def __len__(self):
            return 160

    dataset = Labels()
    parts = stratified_split(dataset, fractions, seed=3)
    assert sorted(i for part in parts for i in part.indices) == list(range(160))
    for part, fraction in zip(parts, fractions, strict=True):
        for label, n in enumerate((100, 40, 20)):
            assert abs(get_labels(part).count(label) - n * fraction) <= 1


def test_a_split_is_restored_and_a_missing_file_is_named(photos, tmp_path):
    folder = broken_copy(photos, tmp_path / "data")
    data = get_data("imagefolder", folder, seed=5)
    split = data.file_names
    Image.new("RGB", (50, 50)).save(folder / "val" / "hero" / "999.jpg")  # new images do not change the split
    again = restore_split(get_data("imagefolder", folder), split, data.task)
    assert again.file_names == split
    assert get_labels(again.test) == get_labels(data.test)
    (folder / split["test"][0]).unlink()
    with pytest.raises(UserError, match=split["test"][0]):
        restore_split(get_data("imagefolder", folder), split, data.task)


def test_a_split_of_items_without_names_is_not_restored_by_index():
    class Numbers(torch.utils.data.Dataset):
        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

    data = DatasetSplits(Numbers(6), Numbers(3), Numbers(2), ["a", "b"])
    split = data.file_names
    assert restore_split(data, split, data.task) is data
    with pytest.raises(UserError, match="no unique file names"):
        restore_split(replace(data, test=Numbers(1)), split, data.task)


def test_a_demo_that_was_left_half_drawn_is_drawn_again(tmp_path, monkeypatch):
    draw_demo(tmp_path / "demo", {"train": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    before = sorted((tmp_path / "demo" / "train" / "hero").iterdir())
    draw_demo(tmp_path / "demo", {"train": 5})  # another process was faster
    assert sorted((tmp_path / "demo" / "train" / "hero").iterdir()) == before
    monkeypatch.setattr(sys.modules["data.demo"], "draw_image", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw_demo(tmp_path / "second", {"train": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_get_dataloaders_keeps_the_original_call(photos):
    from data.transformation import train_transform, val_transform

    loaders = get_dataloaders(
        photos / "train",
        photos / "val",
        train_transform=train_transform,
        val_transform=val_transform,
        split=(0.5, 0.5),
        batch_size=5,
        num_workers=0,
    )
    train_dl, val_dl, test_dl = loaders
    assert loaders.classes == ["helmet", "hero"]
    images, targets = next(iter(train_dl))
    assert images.shape == (5, 3, 224, 224)
    assert images.dtype == torch.uint8
    assert targets.dtype == torch.int64
    assert (len(val_dl.dataset), len(test_dl.dataset)) == (8, 8)


def histogram(path: Path) -> torch.Tensor:
    """Return the square root of an HSV histogram: (216,) of float."""
    pixels = np.asarray(Image.open(path).convert("HSV")).reshape(-1, 3)
    counts, _ = np.histogramdd(pixels, bins=6, range=[(0, 256)] * 3)
    return torch.from_numpy(np.sqrt(counts.ravel() / len(pixels))).float()


def test_the_demo_cannot_be_told_by_its_colours(tmp_path, seeded_everything):
    folder = tmp_path / "demo"
    data = get_data("demo", folder)
    train, test = (
        (
            torch.stack([histogram(folder / name) for part in parts for name in get_file_names(part)]),
            torch.tensor([label for part in parts for label in get_labels(part)]),
        )
        for parts in ([data.train], [data.val, data.test])
    )
    weights = torch.zeros(216, 1, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.1, weight_decay=1e-4)
    centre = train[0].mean(dim=0)
    for _ in range(300):
        logits = ((train[0] - centre) @ weights).squeeze()
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(logits, train[1].float()).backward()
        optimizer.step()
    right = [((((x - centre) @ weights).squeeze() > 0) == y).float().mean().item() for x, y in (train, test)]
    assert right[0] > 0.7  # it does learn its training set
    assert right[1] < 0.7
