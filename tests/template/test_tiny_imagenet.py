"""Tiny ImageNet as published: zip or unpacked, nothing moved."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from data import get_data
from data.splits import get_file_names, get_labels


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A small Tiny ImageNet in the published layout: 3 classes with 20 images each to train with, 12 in val."""
    root = tmp_path / "tiny" / "tiny-imagenet-200"
    names = {
        "n01443537": "goldfish, Carassius auratus",
        "n02124075": "Egyptian cat",
        "n09999999": "goldfish, a toy",
    }
    rng = np.random.default_rng(0)
    for wnid in names:
        (root / "train" / wnid / "images").mkdir(parents=True)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
        for i in range(20):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
                root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG"
            )
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
            root / "val" / "images" / f"val_{i}.JPEG"
        )
        lines.append(f"val_{i}.JPEG\t{sorted(names)[i % 3]}\t0\t0\t62\t62")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "wnids.txt").write_text("\n".join(names))
    (root / "words.txt").write_text("\n".join(f"{wnid}\t{words}" for wnid, words in names.items()))
    return root


def snapshot(folder: Path) -> dict[str, int]:
    """All files below a folder, with their times."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_tiny_imagenet_as_published(tiny, train):
    before = snapshot(tiny)
    data = get_data("tiny_imagenet", tiny.parent)
    assert data.classes == ["goldfish (n01443537)", "Egyptian cat", "goldfish (n09999999)"]
    assert (len(data.train), len(data.val), len(data.test), data.image_size) == (54, 6, 12, 64)
    said = {
        line.split("\t")[0]: line.split("\t")[1]
        for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines()
    }
    wnids = sorted(set(said.values()))
    for name, label in zip(get_file_names(data.test), get_labels(data.test), strict=True):
        assert wnids[label] == said[Path(name).name]
    for name, label in zip(get_file_names(data.train), get_labels(data.train), strict=True):
        assert wnids[label] == name.split("/")[1]
    run = train(dataset="tiny_imagenet", data_dir=tiny, epochs=1)
    assert json.loads(run.metrics.read_text())["epochs"] == 1
    assert snapshot(tiny) == before


def test_tiny_imagenet_as_a_zip_file(tiny, tmp_path):
    expected = get_data("tiny_imagenet", tiny)
    (tmp_path / "zip").mkdir()
    shutil.make_archive(str(tmp_path / "zip" / "tiny-imagenet-200"), "zip", tiny.parent, "tiny-imagenet-200")
    data = get_data("tiny_imagenet", tmp_path / "zip")
    assert get_file_names(data.test) == get_file_names(expected.test)
    assert len(data.train[0][0].getcolors(5000)) > 1
    with pytest.raises(UserError, match=r"tiny-imagenet-200\.zip"):
        get_data("tiny_imagenet", tmp_path / "nowhere")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tiny-imagenet-200.zip").write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match="cannot be unpacked"):
        get_data("tiny_imagenet", tmp_path / "broken")
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["tiny-imagenet-200.zip"]


def test_labels_and_images_of_tiny_imagenet_that_do_not_match_are_named(tiny):
    (tiny / "val" / "images" / "val_3.JPEG").rename(tiny / "val" / "images" / "val_99.JPEG")
    problems = get_data("tiny_imagenet", tiny).problems
    assert len(problems) == 2
    assert "no image val_3.JPEG" in problems[0]
    assert "does not list val_99.JPEG" in problems[1]
    with open(tiny / "val" / "val_annotations.txt", "ab") as file:
        file.write(b"\nval_100.JPEG n01443537\nval_101.JPEG\tn0\xff\n")
    (tiny / "words.txt").write_bytes(b"n01443537\tcaf\xe9\n")
    shutil.rmtree(tiny / "train" / "n02124075" / "images")
    shutil.rmtree(tiny / "val" / "images")
    data = get_data("tiny_imagenet", tiny)
    assert any("val_101.JPEG has a class that train lacks" in problem for problem in data.problems)
    assert len(data.problems) == 12 + 1
    assert len(data.train) + len(data.val) == 40
