"""torchvision's data sets by name: as published, downloaded if they are missing, and identified by their origin."""

import gzip
import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from core.errors import UserError
from data import get_data
from data.check import inspect_images
from data.splits import get_labels
from data.torchvision_datasets import TorchvisionDataset


def idx(array: np.ndarray) -> bytes:
    """An array in the format of MNIST's files."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def kmnist_files() -> dict[str, bytes]:
    """A small data set under KMNIST's names: 60 images to train with, 20 to test."""
    rng = np.random.default_rng(0)
    files = {}
    for name, n in ("train", 60), ("t10k", 20):
        files[f"{name}-images-idx3-ubyte"] = idx(rng.integers(0, 255, (n, 28, 28)))
        files[f"{name}-labels-idx1-ubyte"] = idx(np.arange(n) % 10)
    return files


def test_a_torchvision_data_set_by_name(tmp_path, train, monkeypatch):
    raw = tmp_path / "files" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in kmnist_files().items():
        (raw / name).write_bytes(content)
    data = get_data("kmnist", tmp_path / "files")
    assert len(data.classes) == 10
    # the published test set is left whole
    assert (len(data.train), len(data.val), len(data.test)) == (54, 6, 20)
    assert (data.image_size, data.augmentation) == (28, "characters")
    assert data.train[0][0].mode == "RGB"
    assert get_labels(data.test) == [i % 10 for i in range(20)]
    findings = inspect_images(data, tmp_path / "cache")
    assert findings.images_checked == 80
    with monkeypatch.context() as patch:  # statistics are cached
        patch.setattr("data.duplicates.compute_image_stats", lambda *_: 1 / 0)
        assert inspect_images(data, tmp_path / "cache") == findings
    run = train(dataset="kmnist", data_dir=tmp_path / "files", image_size=None, epochs=1)
    options = json.loads(run.config.read_text())["options"]
    assert (options["image_size"], options["augmentation"]) == (28, "characters")
    evaluate.main(evaluate.Options(run.folder, num_workers=0, device="cpu"))
    assert (
        json.loads((run / "evaluate-test.json").read_text())["test_acc"]
        == json.loads(run.metrics.read_text())["test_acc"]
    )


def test_a_missing_data_set_is_downloaded(tmp_path, monkeypatch):
    from torchvision.datasets import KMNIST

    files = {f"{name}.gz": gzip.compress(content) for name, content in kmnist_files().items()}
    site = tmp_path / "site"
    site.mkdir()
    for name, content in files.items():
        (site / name).write_bytes(content)
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(KMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        sums = [(name, hashlib.md5((site / name).read_bytes()).hexdigest()) for name, _ in KMNIST.resources]
        monkeypatch.setattr(KMNIST, "resources", sums)
        assert len(get_data("kmnist", tmp_path / "new").train) == 54
        server.shutdown()
    monkeypatch.setattr(KMNIST, "mirrors", ["http://127.0.0.1:1/"])
    assert len(get_data("kmnist", tmp_path / "new").train) == 54  # and then it is there
    (tmp_path / "offline").mkdir()
    with pytest.raises(UserError, match=r"KMNIST/raw.*--data-dir"):
        get_data("kmnist", tmp_path / "offline")


def test_photographs_of_torchvision(tmp_path, monkeypatch):
    root = tmp_path / "pets" / "oxford-iiit-pet"
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    lines = {"trainval": [], "test": []}
    for i in range(40):
        name = f"{('Abyssinian', 'beagle')[i % 2]}_{i}"
        Image.new("L" if i == 0 else "RGB", (60, 40), i).save(root / "images" / f"{name}.jpg")
        lines["test" if i >= 30 else "trainval"].append(f"{name} {i % 2 + 1} 1 1")
    for part, text in lines.items():
        (root / "annotations" / f"{part}.txt").write_text("\n".join(text))
    data = get_data("oxford_iiit_pet", tmp_path / "pets")
    assert (len(data.train), len(data.val), len(data.test)) == (27, 3, 10)
    assert data.classes == ["Abyssinian", "Beagle"]
    assert data.image_size == 224

    food = tmp_path / "food" / "food-101"
    (food / "meta").mkdir(parents=True)
    listed = {
        part: {c: [f"{c}/{part}{i}" for i in range(20)] for c in ("apple_pie", "waffles")}
        for part in ("train", "test")
    }
    for part, names in listed.items():
        (food / "meta" / f"{part}.json").write_text(json.dumps(names))
        for name in names["apple_pie"] + names["waffles"]:
            path = food / "images" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20)).save(path)
    data = get_data("food101", tmp_path / "food")
    assert (len(data.train), len(data.val), len(data.test)) == (36, 4, 40)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "flowers102"])
def test_a_data_set_that_could_not_be_downloaded_says_where_to_put_it(tmp_path, monkeypatch, name):
    import torchvision

    def refuse(*args, **kwargs):
        raise OSError("no network")

    for module in ("mnist", "cifar", "flowers102", "utils"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.download_and_extract_archive", refuse, raising=False
        )
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_url", refuse, raising=False)
    assert torchvision.datasets
    with pytest.raises(UserError, match=r"no network.*put the published files there"):
        get_data(name, tmp_path)


def test_images_of_torchvision_are_identified_by_their_origin(tmp_path):
    features = pytest.importorskip("training.feature_cache")

    class Digits(torch.utils.data.Dataset):
        def __init__(self, root: Path) -> None:
            self.root, self.targets = root, [0, 1]

        def __getitem__(self, index):
            return Image.new("L", (8, 8), index), index

    one = features.image_sources(TorchvisionDataset(Digits(tmp_path / "a"), "train"))
    assert None not in one
    others = [("a", "test"), ("b", "train")]
    found = {
        tuple(features.image_sources(TorchvisionDataset(Digits(tmp_path / root), part)))
        for root, part in others
    }
    assert len(found | {tuple(one)}) == 3
