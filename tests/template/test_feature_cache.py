"""Cached features: the same as those computed afresh, computed once, and never stale."""

import csv
import importlib
import json
import os
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import imgaug.augmenters as iaa
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from config import Config, parse_config
from core.errors import UserError
from data import DATASETS, get_data, get_transforms, make_loaders
from data.demo import draw_demo
from data.loaders import TransformedDataset
from data.splits import DatasetSplits
from data.torchvision_datasets import TORCHVISION_DATASETS
from data.transformation import ImgAugTransform
from main import main
from models import MODELS
from models.classifier import Classifier
from Project import Project, Run
from training.feature_cache import FeatureLoader, fingerprint
from training.resolve import resolve


def network_of(n_classes: int, pretrained: bool = True) -> Classifier:
    """A small network, always the same, frozen where it counts as pretrained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2)]
        network = Classifier(
            nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()), 32, n_classes
        )
    return network.freeze() if pretrained else network


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Its name for the command line."""
    monkeypatch.setitem(MODELS, "small", network_of)


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """Which pictures were sent through the backbone to keep their features; grows."""
    numbers, compute = [], FeatureLoader.compute

    def spy(self, indices):
        numbers.extend(indices.tolist())
        return compute(self, indices)

    monkeypatch.setattr(FeatureLoader, "compute", spy)
    return numbers


@pytest.fixture
def kept(photos, tmp_path):
    """Features of a copy of the drawn pictures: call it to compute what is missing, as a new training would."""
    folder = tmp_path / "copy"
    for file in photos.rglob("*.jpg"):
        target = folder / file.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())

    def call(part: str = "train", network: Classifier | None = None, views: int = 3, seed: int = 0):
        data = get_data("imagefolder", folder)
        train_dl, val_dl, _ = make_loaders(data, *get_transforms(32), batch_size=8, num_workers=0)
        loader, views = (train_dl, views) if part == "train" else (val_dl, 0)
        return FeatureLoader(network or network_of(2), loader, tmp_path / "cache", views, seed)

    call.folder = folder
    return call


def test_they_are_what_the_network_makes_of_the_pictures(kept):
    network = network_of(2).eval()
    loader = kept("val", network)
    for (found, labels), (images, expected) in zip(loader, loader.loader, strict=True):
        assert found.dtype == torch.float16
        assert labels.equal(expected)
        with torch.no_grad():
            assert torch.allclose(network(found), network(images), atol=2e-3)


def test_views_differ_and_an_epoch_takes_any_of_them(kept):
    loader = kept(views=3)
    assert loader.keys.shape == (24, 3)
    views = [loader.features(np.arange(24), np.full(24, view)) for view in range(3)]
    assert all((views[i] != views[j]).any(dim=1).all() for i, j in ((0, 1), (0, 2), (1, 2)))
    drawn = {tuple(row.tolist()) for _ in range(12) for found, _ in loader for row in found}
    assert len(drawn) == 72


def test_the_second_time_nothing_is_computed(kept, computed):
    kept(), kept("val")
    assert len(computed) == 24 + 8
    first = kept().features(np.arange(24), np.arange(24))
    kept("val")
    assert len(computed) == 24 + 8
    assert first.equal(kept().features(np.arange(24), np.arange(24)))


def test_a_picture_that_has_changed_is_computed_again_and_it_alone(kept, computed):
    before = kept()
    file = sorted((kept.folder / "train").rglob("*.jpg"))[5]
    Image.new("RGB", (90, 70), "red").save(file)
    computed.clear()
    after = kept()
    assert computed == [5]
    every, zeros = np.arange(24), np.zeros(24, int)
    changed = (before.features(every, zeros) != after.features(every, zeros)).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [5]


def test_more_views_or_another_seed_are_computed_and_both_stay(kept, computed):
    kept(views=2), kept(views=4)
    assert len(computed) == 48
    kept(seed=1)
    assert len(computed) == 72
    kept(views=2), kept(views=4), kept(seed=1)
    assert len(computed) == 72


def test_what_features_depend_on_is_in_the_fingerprint(photos, tmp_path, monkeypatch):
    dataset = get_data("imagefolder", photos).train
    train, val = get_transforms(32)

    def digest(network=None, transform=train, device="cpu", bf16=False) -> bytes:
        return fingerprint(network or network_of(2), TransformedDataset(dataset, transform, []), device, bf16)

    unused = v2.Compose([v2.PILToTensor(), v2.CenterCrop(32), ImgAugTransform(iaa.Fliplr(0.5))])
    assert digest(transform=unused) == digest(transform=unused)
    network, first = network_of(2), digest()
    with torch.no_grad():
        network.head.weight.fill_(1)
    assert digest(network) == first  # features come before the head
    others = [
        digest(transform=val),
        digest(transform=get_transforms(40)[0]),
        digest(transform=get_transforms(32, "small")[0]),
        digest(transform=lambda picture: train(picture) // 2),
        digest(device="cuda"),
        digest(bf16=True),
    ]
    network.backbone[1].running_mean += 0.01
    others.append(digest(network))
    network = network_of(2)
    network.normalize.mean += 0.01
    others.append(digest(network))
    network = network_of(2)
    network.backbone[2] = nn.LeakyReLU()
    others.append(digest(network))
    assert len({first, *others}) == len(others) + 1


def test_the_code_of_the_network_counts_and_that_of_others_does_not(photos, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    module, dataset = tmp_path / "halved.py", get_data("imagefolder", photos).train
    found = []
    for code in ("x / 2", "x / 2", "x / 3"):
        module.write_text(
            f"from torch import nn\n\n\nclass Halved(nn.Module):\n    def forward(self, x):\n        return {code}\n"
        )
        (tmp_path / f"another_{len(found)}.py").write_text("")
        importlib.invalidate_caches()
        network = network_of(2)
        network.backbone.append(importlib.import_module("halved").Halved())
        found.append(
            fingerprint(network, TransformedDataset(dataset, get_transforms(32)[1], []), "cpu", False)
        )
        del sys.modules["halved"]
    assert found[0] == found[1] != found[2]


def test_a_pass_that_was_killed_goes_on_where_it_was(kept, computed):
    first = kept().features(np.arange(24), np.zeros(24, int))
    (file,) = kept.folder.parent.glob("cache/features/*/*.records")
    os.truncate(file, file.stat().st_size // 2 + 5)  # in the midst of a record
    computed.clear()
    again = kept().features(np.arange(24), np.zeros(24, int))
    assert 0 < len(computed) < 24
    assert torch.allclose(first.float(), again.float(), atol=1e-3)


def test_files_that_do_not_belong_into_the_store_are_ignored(kept, computed):
    first = kept().features(np.arange(24), np.arange(24))
    (file,) = kept.folder.parent.glob("cache/features/*/*.records")
    file.with_name("note.txt").write_text("hello")
    file.with_name("a.records").touch()
    file.with_name("b.records").write_bytes(b"x" * 1000)
    assert first.equal(kept().features(np.arange(24), np.arange(24)))
    assert len(computed) == 24


def test_an_own_data_set_is_computed_each_time(tmp_path, computed, monkeypatch):
    class Mine(torch.utils.data.Dataset):
        classes, targets, files = ("a", "b"), [0, 1] * 4, [f"{i}.jpg" for i in range(8)]
        colour = "red"

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return Image.new("RGB", (40, 40), self.colour), self.targets[index]

    undone = []
    monkeypatch.setattr(
        "atexit.register", lambda work, *args, **options: undone.append((work, args, options))
    )
    data = DatasetSplits(Mine(), Mine(), Mine(), ["a", "b"])
    for colour in ("red", "blue"):
        Mine.colour = colour
        loader = make_loaders(data, *get_transforms(32), batch_size=8, num_workers=0).val
        found = FeatureLoader(network_of(2), loader, tmp_path / "cache")
        with torch.no_grad():
            expected = network_of(2).eval().features(next(iter(loader))[0])
        assert torch.allclose(next(iter(found))[0].float(), expected, atol=2e-3)
    assert len(computed) == 16
    for work, args, options in undone:
        work(*args, **options)
    assert not list((tmp_path / "cache").rglob("*.records"))


def test_features_beyond_float16_are_refused(kept):
    network = network_of(2)
    with torch.no_grad():
        network.backbone[3].weight.mul_(1e6)
    with pytest.raises(UserError, match="--freeze"):
        kept("val", network)


@pytest.mark.parametrize(
    ("options", "frozen", "views"),
    [
        ({}, True, 2),
        ({"epochs": 1}, True, 1),
        ({"augmentation": "none"}, True, 1),
        ({"cached_views": 7}, True, 7),
        ({"cached_views": 0}, True, 0),
        ({}, False, 0),
    ],
)
def test_how_many_views_by_default(options, frozen, views):
    network = network_of(2, frozen)
    data = DatasetSplits([(None, 0)] * 9, [], [], ["a", "b"])
    assert resolve(Config(**options), data, network).cached_views == views


def test_views_that_cannot_be_kept_are_refused(train, project):
    with pytest.raises(UserError, match="--cached-views 2: the backbone trains"):
        train(cached_views=2)
    assert not list(project.checkpoint_dir.iterdir())
    with pytest.raises(UserError, match="at least 0"):
        Config(cached_views=-1)


def test_a_training_on_features_learns_and_its_final_figures_are_of_whole_pictures(train, computed):
    run = train(model="small", epochs=8, lr=0.05)
    assert len(computed) == 24 + 8
    rows = list(csv.DictReader(run.log.open()))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    metrics = json.loads(run.metrics.read_text())
    best = rows[metrics["best_epoch"] - 1]
    assert float(best["val_acc"]) == pytest.approx(metrics["val_acc"])
    assert json.loads(run.config.read_text())["options"]["cached_views"] == 2
    train(model="small", epochs=8, lr=0.01)
    assert len(computed) == 24 + 8  # another rate starts at once


def test_the_backbone_never_sees_a_picture_in_an_epoch(train, monkeypatch):
    seen = {}
    forward = Classifier.forward

    def spy(self, images):
        seen[images.ndim] = seen.get(images.ndim, 0) + 1
        return forward(self, images)

    monkeypatch.setattr(Classifier, "forward", spy)
    train(model="small", epochs=6)
    on_features, on_pictures = seen[2], seen[4]
    train(model="small", epochs=60, run_name="longer")
    assert seen[4] == 2 * on_pictures
    assert seen[2] > 5 * on_features


def test_fresh_views_are_for_training_only(train, computed, monkeypatch):
    seen, forward = [], Classifier.forward

    def spy(self, images):
        seen.append(images.ndim)
        return forward(self, images)

    monkeypatch.setattr(Classifier, "forward", spy)
    plain = train(model="small", epochs=3, patience=3, cached_views=0)
    assert len(computed) == 8  # each picture for validation, once
    assert seen.count(2) == 3  # a batch of them in each epoch
    metrics = json.loads(plain.metrics.read_text())
    best = list(csv.DictReader(plain.log.open()))[metrics["best_epoch"] - 1]
    assert float(best["val_acc"]) == pytest.approx(metrics["val_acc"])


def test_features_log_how_far_they_are(train, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr("tqdm.std.time", count(0, 31).__next__)
    train(model="small", epochs=1)
    assert any(line.startswith("features: 8 of 24 images, about ") for line in caplog.messages)


def test_a_mixed_training_validates_on_features_that_are_not_mixed(train):
    pytest.importorskip("training.mixup")
    run = train(model="small", epochs=2, lr=0.05, mixup="mixup")
    metrics = json.loads(run.metrics.read_text())
    best = list(csv.DictReader(run.log.open()))[metrics["best_epoch"] - 1]
    assert float(best["val_loss"]) == pytest.approx(metrics["val_loss"], abs=1e-3)


def test_once_unfrozen_it_trains_on_pictures(train, monkeypatch):
    seen, forward = [], Classifier.forward

    def spy(self, images):
        seen.append((images.ndim, self.n_frozen))
        return forward(self, images)

    monkeypatch.setattr(Classifier, "forward", spy)
    train(model="small", epochs=4, unfreeze_epoch=3)
    while_frozen = {ndim for ndim, n_frozen in seen if n_frozen == max(n for _, n in seen)}
    after = {ndim for ndim, n_frozen in seen if n_frozen < max(n for _, n in seen)}
    assert 2 in while_frozen
    assert after == {4}


def test_the_same_log_whatever_is_in_the_cache_and_after_a_resume(photos, tmp_path):
    options = {"data_dir": photos, "model": "small", "image_size": 32, "batch_size": 8, "num_workers": 0}
    options |= {"trackers": ("none",), "device": "cpu", "patience": 4, "cached_views": 2}

    def log(run) -> list[dict]:
        return [
            {k: v for k, v in row.items() if "time" not in k}
            for row in csv.DictReader(run.log.open(encoding="utf-8"))
        ]

    project = Project(tmp_path / "project")
    first = log(main(Config(**options, epochs=4), project))
    assert log(main(Config(**options, epochs=4), project)) == first
    half = main(Config(**options, epochs=2, run_name="half"), Project(tmp_path / "other"))
    resumed = parse_config(["--resume", str(half.folder), "--epochs", "4"])
    assert log(main(resumed, Project(tmp_path / "other"))) == first


def test_several_labels_on_an_image(photos, tmp_path, computed, project):
    files = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))
    rows = [f"{name},{'a|b' if i % 3 == 0 else 'a' if i % 3 == 1 else 'b'}" for i, name in enumerate(files)]
    table = photos.parent / "several.csv"
    table.write_text("file,label\n" + "\n".join(f"{photos.name}/{row}" for row in rows))
    options = {"image_size": 32, "batch_size": 8, "num_workers": 0, "trackers": ("none",), "device": "cpu"}
    run = main(Config(dataset="csv", data_dir=table, model="small", epochs=2, **options), project)
    assert computed
    assert "val_exact_match" in json.loads(run.metrics.read_text())


def check_that_the_best_epoch_has_the_final_metrics(run: Run) -> None:
    """Training validates on features, the final scores are those of whole images through the whole network."""
    rows = list(csv.DictReader(run.log.open(encoding="utf-8")))
    metrics = json.loads(run.metrics.read_text())
    best = rows[metrics["best_epoch"] - 1]
    assert float(best["val_loss"]) == pytest.approx(metrics["val_loss"], abs=2e-3)
    assert float(best["val_acc"]) == pytest.approx(metrics["val_acc"])
    assert float(best["val_f1"]) == pytest.approx(metrics["val_f1"])
    assert len({row["val_loss"] for row in rows}) == len(rows)  # the head learns


class Drawn(Dataset):
    """Noise of one colour for each class, in the way of torchvision's data sets: a root, classes and targets."""

    classes = ("0", "1", "2")

    def __init__(self, root: Path, n: int = 24, **_: object) -> None:
        self.root, self.targets = root, [i % 3 for i in range(n)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        values = np.random.default_rng(index).integers(0, 120, (40, 40, 3))
        values[..., self.targets[index]] += 100
        return Image.fromarray(values.astype(np.uint8)), self.targets[index]


def folder_of(name: str, tmp_path: Path, photos: Path, monkeypatch) -> Path:
    """Images for a data set, in the layout that it reads."""
    files = sorted(photos.rglob("*.jpg"))
    folder = tmp_path / "images"
    folder.mkdir()
    if name == "csv":
        rows = [f"{photos / file},{file.parent.name}" for file in files]
        (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))
    elif name == "my_dataset":
        for i, file in enumerate(files):
            (folder / f"{file.parent.name}_{i:02}.jpg").write_bytes(file.read_bytes())
    elif name == "demo":
        draw_demo(folder / "demo", {"train": 12, "val": 8})
        return folder / "demo"
    elif name == "tiny_imagenet":
        for i, file in enumerate(files):
            part = "val/images" if i % 4 == 0 else f"train/{file.parent.name}/images"
            (folder / part).mkdir(parents=True, exist_ok=True)
            (folder / part / f"{i}.JPEG").write_bytes(file.read_bytes())
        rows = [f"{i}.JPEG\t{file.parent.name}\t0\t0\t9\t9" for i, file in enumerate(files) if i % 4 == 0]
        (folder / "val" / "val_annotations.txt").write_text("\n".join(rows))
        (folder / "words.txt").touch()
    elif name in TORCHVISION_DATASETS:
        source = DATASETS[name]
        drawn = replace(source, dataset_class=lambda root, **settings: Drawn(root))
        monkeypatch.setitem(DATASETS, name, drawn)
        (folder / source.folder).mkdir(parents=True)
    else:
        return photos
    return folder


@pytest.mark.parametrize("name", DATASETS)
def test_the_metrics_of_the_best_epoch_are_the_final_ones(name, train, photos, tmp_path, monkeypatch):
    folder = folder_of(name, tmp_path, photos, monkeypatch)
    if name == "demo":
        monkeypatch.setattr("data.data_folder", lambda *_, drawn=folder: drawn)
        folder = None
    run = train(model="small", dataset=name, data_dir=folder, epochs=4, lr=0.01)
    check_that_the_best_epoch_has_the_final_metrics(run)


class Own(Dataset):
    """A data set of one's own: a list of files, or a function that draws."""

    def __init__(self, read: Callable[[int], Image.Image], n: int, **attributes: object) -> None:
        self.read, self.n = read, n
        vars(self).update(attributes)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.read(index), index % 2


def own_datasets(photos: Path) -> dict[str, Own]:
    """Data sets such as people write."""
    files = sorted(photos.rglob("*.jpg"), key=lambda file: file.name)
    mixed = [*files]
    random.Random(1).shuffle(mixed)
    names = [file.name for file in files]  # each of them twice

    def drawn_anew(index: int) -> Image.Image:
        values = np.random.randint(0, 120, (40, 40, 3))
        values[..., index % 2] += torch.randint(60, 100, ()).item() + random.randrange(20)
        return Image.fromarray(values.astype(np.uint8))

    return {
        "shuffled": Own(lambda index: Image.open(mixed[index]), len(files)),
        "duplicates": Own(lambda index: Image.open(files[index // 4]), len(files), files=names),
        "lazy": Own(
            lambda index: Image.open(files[index]), len(files), targets=[i % 2 for i in range(len(files))]
        ),
        "drawn": Own(drawn_anew, 60),
    }


@pytest.mark.parametrize("name", ["shuffled", "duplicates", "lazy", "drawn"])
@pytest.mark.parametrize("views", [2, 0])
def test_the_same_for_data_sets_of_all_kinds(name, views, train, photos, monkeypatch):
    def own(data_dir: Path) -> DatasetSplits:
        dataset = own_datasets(photos)[name]
        return DatasetSplits(dataset, None, None, ["a", "b"])

    monkeypatch.setitem(DATASETS, "own", own)
    run = train(model="small", dataset="own", split=(0.4, 0.3, 0.3), epochs=4, lr=0.01, cached_views=views)
    check_that_the_best_epoch_has_the_final_metrics(run)
    assert not [path for path in run.folder.parents[1].rglob("*.records") if "run-" not in str(path)]


def test_a_label_that_changes_from_reading_to_reading_is_refused(train, monkeypatch):
    class Random(Own):
        def __getitem__(self, index):
            return self.read(index), random.randrange(2)

    def own(data_dir: Path) -> DatasetSplits:
        dataset = Random(lambda _: Image.new("RGB", (40, 40)), 60, targets=[i % 2 for i in range(60)])
        return DatasetSplits(dataset, None, None, ["a", "b"])

    monkeypatch.setitem(DATASETS, "own", own)
    with pytest.raises(UserError, match="another label each time it is read"):
        train(model="small", dataset="own", epochs=2)


def test_a_file_in_place_of_the_cache_is_one_line_and_leaves_no_run(train, project):
    store = project.cache_dir / "features"
    store.parent.mkdir(parents=True)
    store.write_text("")
    with pytest.raises(UserError, match="cache .*features.* cannot be made .*delete it"):
        train(model="small")
    assert not list(project.checkpoint_dir.iterdir())


def test_a_folder_in_the_cache_is_ignored(train, project):
    train(model="small", run_name="a")
    for store in (project.cache_dir / "features").iterdir():
        (store / "note.records").mkdir()
        (store / "note.records" / "text").write_text("x" * 10_000)
    train(model="small", run_name="b")
