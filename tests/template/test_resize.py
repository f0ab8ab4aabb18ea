"""How an image becomes the square that the network gets: cut, padded or squashed, and the same wherever it is read."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import predict
from config import Config
from data import get_data, get_transforms
from data.check import check, describe, inspect_images
from data.image_io import needed_side, read_image
from data.transformation import RESIZES
from utils import load_run

RED, BLUE = (200, 40, 40), (40, 40, 200)


@pytest.fixture
def wide(tmp_path) -> Path:
    """Images four times as wide as high, grey but for a square at either end, whose colour is the class."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "wide"
    for split, n in ("train", 24), ("val", 24):
        for name in ("blue", "red"):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                image = Image.fromarray(rng.integers(90, 160, (40, 160, 3), dtype=np.uint8))
                for left in (0, 130):
                    image.paste(BLUE if name == "blue" else RED, (left, 5, left + 30, 35))
                image.save(folder / split / name / f"{i:02}.png")
    return folder


def banner(width: int, height: int) -> Image.Image:
    """A red image whose right half, or lower half where it is higher than wide, is blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height) if width > height else (0, height // 2, width, height))
    return image


def rows(path: Path) -> list[dict[str, str]]:
    """Those of a table."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_pad_shows_all_of_an_image_in_black_and_squash_fills_the_square_with_it():
    for size in (300, 100), (100, 300), (30, 10):  # small ones are enlarged
        padded = get_transforms(60, resize="pad")[1](banner(*size))
        squashed = get_transforms(60, resize="squash")[1](banner(*size))
        if size[0] < size[1]:
            padded, squashed = padded.mT, squashed.mT
        assert padded[:, :20].max() == padded[:, 40:].max() == 0
        for red, blue in (padded[:, 20:40, 0], padded[:, 20:40, -1]), (squashed[:, :, 0], squashed[:, :, -1]):
            assert (red == torch.tensor(RED)[:, None]).all()
            assert (blue == torch.tensor(BLUE)[:, None]).all()


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(200, 2), (3, 290), (1, 1), (33, 32)])
def test_any_aspect_ratio_and_size_becomes_a_square(resize, size):
    for transform in get_transforms(32, resize=resize):
        view = transform(banner(*size))
        assert (tuple(view.shape), view.dtype) == ((3, 32, 32), torch.uint8)
        assert view.max() > 100


@pytest.mark.parametrize("resize", ["pad", "squash"])
def test_augmentation_acts_on_the_square_that_the_network_gets(resize):
    train, val = get_transforms(64, "none", resize)
    assert torch.equal(train(banner(300, 100)), val(banner(300, 100)))


@pytest.mark.parametrize(
    ("resize", "decoded"),
    [("crop", (1200, 400)), ("pad", (1200, 400)), ("squash", (1200, 400)), ("thumbnail", (600, 200))],
)
def test_large_photographs_are_decoded_no_larger_than_needed(resize, decoded, tmp_path, monkeypatch):
    monkeypatch.setitem(RESIZES, "thumbnail", lambda side: RESIZES["squash"](side // 2))
    grain = np.random.default_rng(0).integers(0, 255, (20, 60, 3), dtype=np.uint8)
    Image.fromarray(grain).resize((2400, 800), Image.Resampling.BICUBIC).save(
        tmp_path / "wide.jpg", quality=95
    )
    with Image.open(tmp_path / "wide.jpg") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "high.jpg", quality=95)
    _, val = get_transforms(144, resize=resize)
    for name, size in ("wide.jpg", decoded), ("high.jpg", decoded[::-1]):
        smaller = read_image(tmp_path / name, needed_side(val))
        assert smaller.size == size
        assert (val(smaller).int() - val(read_image(tmp_path / name)).int()).abs().max() <= 6


@pytest.mark.parametrize("resize", RESIZES)
def test_what_stands_at_both_ends_is_learnt_unless_it_is_cut_off(resize, train, wide, tmp_path):
    run = train(data_dir=wide, resize=resize, epochs=6, lr=3e-3)
    accuracy = json.loads(run.metrics.read_text())["test_acc"]
    assert accuracy < 0.8 if resize == "crop" else accuracy > 0.95

    scored = json.loads(run.metrics.read_text())
    evaluate.main(evaluate.Options(run.folder, num_workers=0, device="cpu"))
    assert json.loads((run / "evaluate-test.json").read_text())["test_loss"] == pytest.approx(
        scored["test_loss"]
    )
    known = rows(run.predictions)
    files = tuple(wide / row["file"] for row in known)
    predict.main(predict.Options(run.folder, files, csv=tmp_path / "out.csv", top=1, device="cpu"))
    for row, expected in zip(rows(tmp_path / "out.csv"), known, strict=True):
        assert float(row["probability"]) == pytest.approx(float(expected[f"p_{row['class']}"]), abs=1e-5)
    seen = get_transforms(32, resize=resize)[1](banner(300, 100))
    assert torch.equal(load_run(run.folder).transform(banner(300, 100)), seen)


def test_what_the_crop_leaves_out_is_told_and_the_option_named(photos, wide, tmp_path, caplog):
    data, config = get_data("imagefolder", wide), Config(num_workers=0)
    findings = check(config, data, tmp_path / "cache").findings
    assert findings.cropped == 96
    assert "96 of 96 images lose more than a third of their area by the crop" in caplog.text
    assert "--resize pad" in caplog.text
    assert any("--resize pad" in line for line in describe(findings, data))
    caplog.clear()
    check(replace(config, resize="pad"), data, tmp_path / "cache")
    assert "--resize" not in caplog.text

    ordinary = tmp_path / "ordinary"
    for split in ("train", "val"):
        for name in ("a", "b"):
            (ordinary / split / name).mkdir(parents=True)
            for i, size in enumerate([(500, 333), (240, 320), (300, 300), (500, 300)]):  # 3:2, 3:4, 1:1, 5:3
                Image.effect_noise(size, 60).convert("RGB").save(ordinary / split / name / f"{i}.png")
    data = get_data("imagefolder", ordinary)
    findings = inspect_images(data, tmp_path / "cache")
    assert findings.cropped == 4
    assert not any("--resize" in line for line in describe(findings, data))
