"""The check before training: planted faults are found, none is invented, and cached statistics are used."""

import json
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import data.duplicates
from config import Config
from core.errors import UserError
from data import get_data
from data.check import Options, check, inspect_images
from data.check import main as command
from data.demo import draw_demo
from Project import project as project_of_template

HERE = project_of_template.base_dir


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    """Two classes, 20 images each to train with and 8 each in val/ and test/."""
    folder = tmp_path_factory.mktemp("clean") / "photos"
    draw_demo(folder, {"train": 20, "val": 8, "test": 8}, seed=5)
    return folder


@pytest.fixture
def spoiled(clean, tmp_path) -> Path:
    """A copy of it to plant faults in."""
    return Path(shutil.copytree(clean, tmp_path / "spoiled"))


def findings_of(folder: Path, tmp_path: Path, dataset: str = "imagefolder"):
    """All that is found in a folder."""
    return inspect_images(get_data(dataset, folder), tmp_path / "cache")


def duplicates_of(images: list[Image.Image]) -> list[list[int]]:
    """Groups of duplicates among images."""
    return data.duplicates.find_duplicates(np.array([data.duplicates.compute_image_stats(i) for i in images]))


def files(groups: list[list[dict]]) -> set[frozenset[str]]:
    """The files of each group."""
    return {frozenset(item["file"] for item in group) for group in groups}


def test_nothing_is_invented_on_clean_data(clean, tmp_path):
    findings = findings_of(clean, tmp_path)
    assert findings.counts["train"] == {"helmet": 20, "hero": 20}
    assert findings.counts["test"] == {"helmet": 8, "hero": 8}
    for name in ("unreadable", "duplicates", "leaks", "label_conflicts", "missing_classes", "problems"):
        assert not getattr(findings, name), name
    assert findings.images_checked == 72
    assert findings.imbalance == 1


def test_planted_faults_are_all_found(spoiled, tmp_path):
    hero = spoiled / "train" / "hero"
    shutil.copy(hero / "000.jpg", spoiled / "val" / "hero" / "same bytes.jpg")
    with Image.open(hero / "001.jpg") as image:
        image.save(spoiled / "test" / "hero" / "re-encoded.png")
        image.save(spoiled / "test" / "hero" / "re-encoded.jpg", quality=40)
    with Image.open(hero / "002.jpg") as image:
        image.resize((image.width // 2, image.height // 2)).save(spoiled / "val" / "hero" / "half.jpg")
        image.resize((image.width * 2, image.height * 2)).save(hero / "double.webp")
        image.convert("L").save(spoiled / "test" / "hero" / "grey.png")
    shutil.copy(hero / "003.jpg", spoiled / "train" / "helmet" / "other label.jpg")
    cut_short = spoiled / "val" / "helmet" / "004.jpg"
    cut_short.write_bytes(cut_short.read_bytes()[:1500])
    (spoiled / "test" / "helmet" / "empty.jpg").write_bytes(b"")
    findings = findings_of(spoiled, tmp_path)
    assert set(findings.unreadable) == {"val/helmet/004.jpg", "test/helmet/empty.jpg"}
    bytes_twice = frozenset({"train/hero/000.jpg", "val/hero/same bytes.jpg"})
    encoded = frozenset({"train/hero/001.jpg", "test/hero/re-encoded.png", "test/hero/re-encoded.jpg"})
    resized = frozenset(
        {"train/hero/002.jpg", "train/hero/double.webp", "val/hero/half.jpg", "test/hero/grey.png"}
    )
    labelled = frozenset({"train/hero/003.jpg", "train/helmet/other label.jpg"})
    assert files(findings.duplicates) == {bytes_twice, encoded, resized, labelled}
    assert files(findings.leaks) == {bytes_twice, encoded, resized}
    assert files(findings.label_conflicts) == {labelled}
    item = next(item for group in findings.duplicates for item in group if "half" in item["file"])
    assert item == {"file": "val/hero/half.jpg", "split": "val", "label": "hero"}


def test_colours_count_and_a_film_is_one_group(tmp_path):
    rng = np.random.default_rng(0)
    discs = []
    for i in range(20):
        for colour in (200, 60, 60), (60, 128, 60):  # as bright as each other
            disc = Image.new("RGB", (96, 96), "white")
            ImageDraw.Draw(disc).ellipse((10 + i, 20, 66 + i, 76), fill=colour)
            discs.append(disc)
    assert not [group for group in duplicates_of(discs) if len({i % 2 for i in group}) > 1]

    frame = np.asarray(discs[0], dtype=int)
    frames = [
        Image.fromarray((frame + rng.normal(0, 3, frame.shape)).clip(0, 255).astype(np.uint8))
        for _ in range(900)
    ]
    assert [len(group) for group in duplicates_of(frames)] == [900]


def test_a_long_pan_is_not_one_image():
    """Each frame is like the next, the first not like the last."""
    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 255, (20, 60, 3), dtype=np.uint8)).resize((1800, 600))
    frames = [wide.crop((2 * i, 0, 2 * i + 600, 600)).resize((96, 96)) for i in range(100)]
    assert max(map(len, duplicates_of(frames))) < 20


def test_characters_are_found_again_when_resized_or_re_encoded():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(40):
        strokes = (rng.random((5, 5)) < 0.4).astype(np.uint8) * 255
        character = Image.fromarray(strokes).resize((28, 28)).convert("RGB")
        encoded = BytesIO()
        character.save(encoded, "JPEG", quality=75)
        images += [character, character.resize((56, 56)), Image.open(encoded).convert("RGB")]
    assert duplicates_of(images) == [[i, i + 1, i + 2] for i in range(0, 120, 3)]


def test_a_class_of_a_table_that_is_missing_somewhere(clean, tmp_path, caplog):
    rows = [f"train/{c}/{i:03}.jpg,{c},train" for c in ("helmet", "hero") for i in range(20)]
    rows += [f"val/helmet/{i:03}.jpg,helmet,{'val' if i < 4 else 'test'}" for i in range(8)]
    table = Path(shutil.copytree(clean, tmp_path / "data")) / "labels.csv"
    table.write_text("\n".join(["file,label,split", *rows, "val/hero/000.jpg,hero,test"]))
    check(Config(), get_data("csv", table), tmp_path / "cache")
    assert "no image in val: hero" in caplog.text
    with pytest.raises(UserError, match="no image in val: hero"):
        check(Config(strict=True), get_data("csv", table), tmp_path / "cache")
    table.write_text(
        "\n".join(
            ["file,label,split", *(row for row in rows if "hero" not in row), "val/hero/1.jpg,hero,val"]
        )
    )
    shutil.copy(clean / "val" / "hero" / "001.jpg", table.parent / "val" / "hero" / "1.jpg")
    with pytest.raises(UserError, match="no image in train: hero"):
        check(Config(), get_data("csv", table), tmp_path / "cache")


def test_a_class_that_is_missing_somewhere(spoiled, tmp_path):
    shutil.rmtree(spoiled / "val" / "hero")
    findings = findings_of(spoiled, tmp_path)
    assert findings.missing_classes == {"val": ["hero"]}
    assert "'hero' has no image" in findings.problems[0]
    with pytest.raises(UserError, match="'hero' has no image"):
        check(Config(), get_data("imagefolder", spoiled), tmp_path / "cache")


def test_two_labels_for_one_file_of_a_table(clean, tmp_path):
    rows = [f"train/{c}/{i:03}.jpg,{c}" for c in ("helmet", "hero") for i in range(20)]
    table = Path(shutil.copytree(clean, tmp_path / "data")) / "labels.csv"
    table.write_text(
        "\n".join(["file,label", *rows, "train/hero/000.jpg,helmet", "train/hero/gone.jpg,hero"])
    )
    findings = findings_of(table.parent, tmp_path, "csv")
    (group,) = findings.label_conflicts
    assert sorted((item["file"], item["label"]) for item in group) == [
        ("train/hero/000.jpg", "helmet"),
        ("train/hero/000.jpg", "hero"),
    ]
    assert "row 43: there is no file 'train/hero/gone.jpg'" in findings.problems[0]
    assert findings.unreadable == ["train/hero/gone.jpg"]


def test_mean_and_std_are_those_of_the_training_images(spoiled, tmp_path):
    for path in spoiled.rglob("*.jpg"):
        colour = (10, 100, 200) if path.parent.name == "hero" else (50, 100, 0)
        Image.new("RGB", (64, 48), colour if "train" in path.parts else "white").save(
            path.with_suffix(".png")
        )
        path.unlink()
    findings = findings_of(spoiled, tmp_path)
    assert findings.mean == pytest.approx([30 / 255, 100 / 255, 100 / 255], abs=1e-3)
    assert findings.std == pytest.approx([20 / 255, 0, 100 / 255], abs=1e-3)


def test_unchanged_images_are_not_read_again(spoiled, tmp_path, monkeypatch):
    computed = []
    real = data.duplicates.compute_image_stats
    monkeypatch.setattr(
        data.duplicates, "compute_image_stats", lambda *args: computed.append(args) or real(*args)
    )
    first = findings_of(spoiled, tmp_path)
    assert len(computed) == 72
    assert findings_of(spoiled, tmp_path) == first
    assert len(computed) == 72
    Image.new("RGB", (30, 20), "red").save(spoiled / "val" / "hero" / "003.jpg")
    assert findings_of(spoiled, tmp_path).sizes["smallest"] == [30, 20]
    assert len(computed) == 73
    shutil.copytree(spoiled, tmp_path / "elsewhere")
    assert findings_of(tmp_path / "elsewhere", tmp_path).images_checked == 72
    assert len(computed) == 72 * 2 + 1


def test_images_outside_of_the_folder_are_cached_too(clean, tmp_path, monkeypatch):
    table = tmp_path / "labels.csv"
    rows = [f"{clean}/train/{c}/{i:03}.jpg,{c}" for c in ("helmet", "hero") for i in range(20)]
    table.write_text("\n".join(["file,label", *rows]))
    findings_of(table, tmp_path, "csv")
    monkeypatch.setattr(data.duplicates, "compute_image_stats", lambda *_: 1 / 0)
    assert not findings_of(table, tmp_path, "csv").unreadable


def test_a_damaged_cache_is_a_warning_and_is_made_again(spoiled, tmp_path, caplog):
    first = findings_of(spoiled, tmp_path)
    (cached,) = (tmp_path / "cache").rglob("*.npz")
    content = cached.read_bytes()
    damaged = content[:1000], b"", b"this is no cache" * 100, content[:30_000] + b"damage" + content[30_006:]
    for damage in damaged:
        (cached,) = (tmp_path / "cache").rglob("*.npz")
        cached.write_bytes(damage)
        caplog.clear()
        assert findings_of(spoiled, tmp_path) == first
        assert "damaged" in caplog.text
    caplog.clear()
    assert findings_of(spoiled, tmp_path) == first
    assert not caplog.text


def test_a_cache_that_cannot_be_written_is_a_warning(spoiled, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file in the way")
    assert findings_of(spoiled, tmp_path).images_checked == 72
    assert "not cached" in caplog.text


def test_an_unreadable_image_is_read_again(spoiled, tmp_path, monkeypatch):
    real = data.duplicates.compute_image_stats
    monkeypatch.setattr(data.duplicates, "compute_image_stats", lambda *_: 1 / 0)
    assert len(findings_of(spoiled, tmp_path).unreadable) == 72
    monkeypatch.setattr(data.duplicates, "compute_image_stats", real)
    assert findings_of(spoiled, tmp_path).unreadable == []


def test_training_does_not_wait_for_very_many_new_images(spoiled, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("data.check.MAX_NEW", 10)
    found = get_data("imagefolder", spoiled)
    assert check(Config(), found, tmp_path / "cache").findings.images_checked == 0
    assert "python -m data.check" in caplog.text
    assert check(Config(normalize="data"), found, tmp_path / "cache").findings.images_checked == 72
    assert check(Config(), found, tmp_path / "cache").findings.images_checked == 72  # known by now


def test_training_warns_of_leaks_and_strict_refuses_them(spoiled, train, project, caplog):
    shutil.copy(spoiled / "train" / "hero" / "000.jpg", spoiled / "test" / "hero" / "leak.jpg")
    train(data_dir=spoiled, epochs=1)
    assert "duplicates with more than one split: 1" in caplog.text
    assert "leak.jpg" in caplog.text
    before = list(project.checkpoint_dir.iterdir())
    with pytest.raises(UserError, match=r"--strict.*leak\.jpg"):
        train(data_dir=spoiled, epochs=1, strict=True)
    assert list(project.checkpoint_dir.iterdir()) == before


def test_the_command_tells_and_writes_what_it_found(spoiled, tmp_path, project, monkeypatch, exit_of):
    shutil.copy(spoiled / "train" / "hero" / "000.jpg", spoiled / "val" / "hero" / "leak.jpg")
    ignore = shutil.ignore_patterns("tests", "checkpoint", "dataset", ".*", "__pycache__")
    copy = Path(shutil.copytree(HERE, tmp_path / "copy", ignore=ignore))
    words = [
        sys.executable,
        "-m",
        "data.check",
        "--data-dir",
        str(spoiled),
        "--json",
        str(tmp_path / "found.json"),
    ]
    done = subprocess.run(words, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert {"unreadable", "duplicates", "missing_classes", "counts", "mean", "std"} <= set(found)
    assert {item["split"] for item in found["duplicates"][0]} == {"train", "val"}
    assert "more than one split: 1" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "(" not in line)
    assert not (copy / "checkpoint").exists()
    monkeypatch.setattr("data.check.project", project)
    for options in Options(data_dir=spoiled, strict=True), Options(data_dir=tmp_path / "nowhere"):
        code, error = exit_of(command, lambda options=options: options)
        assert (code, len(error.splitlines())) == (2, 1)


@pytest.mark.parametrize(("how", "mean", "std"), [("none", [0, 0, 0], [1, 1, 1]), ("data", None, None)])
def test_normalisation_is_stored_with_the_network(train, clean, tmp_path, how, mean, std):
    run = train(data_dir=clean, epochs=1, normalize=how)
    weights = torch.load(run.best, weights_only=True)
    if how == "data":
        found = findings_of(clean, tmp_path)
        mean, std = found.mean, found.std
        assert mean != [0.485, 0.456, 0.406]
    assert weights["normalize.mean"].flatten().tolist() == pytest.approx(mean)
    assert weights["normalize.std"].flatten().tolist() == pytest.approx(std)


def test_damaged_images_are_refused(photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    (folder / "val" / "hero" / "003.jpg").write_bytes(b"\xff\xd8")
    (folder / "train" / "hero" / "000.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"000\.jpg.*1 more"):
        check(Config(), get_data("imagefolder", folder), tmp_path / "cache")


def test_a_class_that_is_missing_from_a_part_is_logged(photos, tmp_path, caplog):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    for path in sorted((folder / "val" / "hero").iterdir())[1:]:
        path.unlink()
    data = check(Config(num_workers=0), get_data("imagefolder", folder), tmp_path / "cache")
    assert list(data.findings.missing_classes.values()) == [["hero"]]
    assert "hero" in caplog.text


def test_a_findings_file_that_cannot_be_written(exit_of, tmp_path):
    for path in (tmp_path, tmp_path / "nowhere" / "out.json"):
        code, error = exit_of(command, lambda path=path: Options(json=path))
        assert (code, "--json" in error) == (2, True)
