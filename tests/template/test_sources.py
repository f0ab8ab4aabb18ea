"""Sources of images: CSV files and custom data sets; several classes on an image."""

import csv
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import predict
from core.errors import UserError
from core.task import Task
from data import DATASETS, get_data
from data.csv_dataset import read_labelled_table
from data.image_dataset import ImageDataset
from data.image_io import images_in
from data.splits import DatasetSplits, check_problems, get_file_names, get_labels


def write_table(path: Path, rows: list[tuple[str, ...]], header: str = "file,label,split") -> Path:
    """A CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


# Tables


def test_labels_that_only_look_like_one_or_several(train, photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    rows = [(f"train/{c}/{i:03}.jpg", c) for c in ("helmet", "hero") for i in range(12)]
    write_table(folder / "more.csv", [("train/hero/000.jpg", "hero", "helmet"), *rows], "file,label")
    with pytest.raises(UserError, match=r"more fields than the header.*a \| between several labels"):
        get_data("csv", folder / "more.csv")
    write_table(folder / "more.csv", [*rows, ("train/hero/000.jpg", "hero", "helmet")], "file,label")
    with pytest.raises(UserError, match=r"Expected 2 fields in line 26.*a \| between several labels"):
        get_data("csv", folder / "more.csv")

    one = write_table(folder / "labels.csv", rows, "file,label")
    run = train(dataset="csv", data_dir=one, epochs=1, run_name="one", split=(0.5, 0.25, 0.25))
    several = write_table(
        tmp_path / "data" / "several.csv", [*rows[1:], ("train/hero/001.jpg", "hero|helmet")], "file,label"
    )
    with pytest.raises(UserError, match="has 2 labels; expected is one"):
        read_labelled_table(several, Task(["helmet", "hero"]))
    assert get_data("csv", several).multilabel
    several.rename(one)
    with pytest.raises(UserError, match="differ in whether an image can have several classes"):
        evaluate.main(evaluate.Options(run.folder, num_workers=0, device="cpu"))
    none = write_table(
        folder / "none.csv", [("train/hero/000.jpg", "hero"), ("train/hero/001.jpg", "")], "file,label"
    )
    assert read_labelled_table(none, Task(["helmet", "hero"], multilabel=True)).targets == [(0, 1), (0, 0)]


def test_a_separator_alone_does_not_make_a_table_multi_label(photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    rows = [(f"train/{c}/{i:03}.jpg", c) for c in ("helmet", "hero") for i in range(12)]
    table = write_table(folder / "labels.csv", [*rows, ("val/hero/000.jpg", "hero|")], "file,label")
    data = get_data("csv", table)
    assert not data.multilabel
    assert data.classes == ["helmet", "hero"]


def test_rows_are_counted_as_in_a_spreadsheet(photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    text = 'file,label,caption\ntrain/hero/000.jpg,hero,"two\nlines"\n\ntrain/helmet/000.jpg,helmet,\nno.jpg,hero\n'
    (folder / "labels.csv").write_text(text)
    with pytest.raises(UserError, match="row 5: there is no file 'no.jpg'"):
        check_problems(get_data("csv", folder, (0.5, 0.25, 0.25)))


def test_a_file_listed_twice_and_a_fold(train, photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    rows = [(f"train/{c}/{i:03}.jpg", c) for c in ("helmet", "hero") for i in range(12)]
    table = write_table(folder / "labels.csv", [*rows, rows[0]], "file,label")
    run = train(data_dir=table, epochs=1, fold=(1, 3))  # a table is known by its name
    evaluate.main(evaluate.Options(run.folder, num_workers=0, device="cpu"))
    metrics = json.loads(run.metrics.read_text())
    assert json.loads((run / "evaluate-test.json").read_text())["test_acc"] == metrics["test_acc"]


def test_images_of_a_run_with_one_missing_are_not_scored_as_other_images(train, photos, tmp_path):
    folder = Path(shutil.copytree(photos / "train", tmp_path / "one"))
    run = train(data_dir=folder, epochs=1)
    (folder / json.loads(run.split.read_text())["train"][0]).unlink()
    with pytest.raises(UserError, match="1 images of this run are not"):
        evaluate.main(evaluate.Options(run.folder, data_dir=folder, num_workers=0, device="cpu"))
    assert not (run / "evaluate-folder.json").exists()


def test_hidden_folders_are_ignored(photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    shutil.copytree(folder / "train" / "hero", folder / "train" / "hero" / ".ipynb_checkpoints")
    assert len(get_data("imagefolder", folder).train) == 24


def test_links_between_folders_change_nothing(photos, tmp_path, caplog):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    plain = get_data("imagefolder", folder)
    expected = [plain.train.files, plain.train.targets, get_file_names(plain.val), get_file_names(plain.test)]
    classes = folder / "train" / "helmet", folder / "train" / "hero"
    for one, other in classes, classes[::-1]:
        (one / "notes.txt").touch()
        (one / "deep" / "er").mkdir(parents=True)
        for place in one, one / "deep" / "er":
            # any two never ended
            for i, target in enumerate((".", "..", one, other, one.parent, folder, tmp_path)):
                (place / f"link {i}").symlink_to(target)
    start = time.perf_counter()
    data = get_data("imagefolder", folder)
    assert [
        data.train.files,
        data.train.targets,
        get_file_names(data.val),
        get_file_names(data.test),
    ] == expected
    assert "ignored in" in caplog.text
    assert "more" not in caplog.text  # each of the two notes once
    real = {os.path.realpath(path) for path in images_in(classes[0])}  # as predict.py, which knows no classes
    assert len(real) == len(list(images_in(classes[0]))) == 24
    assert time.perf_counter() - start < 5


def test_linked_folders_are_read_once(photos, tmp_path):
    folder, elsewhere = Path(shutil.copytree(photos, tmp_path / "data")), tmp_path / "elsewhere"
    shutil.move(folder / "train" / "hero", elsewhere / "a" / "hero")
    shutil.copytree(photos / "val" / "hero", elsewhere / "more")
    (elsewhere / "more" / "back").symlink_to(elsewhere)
    (folder / "train" / "hero").symlink_to(elsewhere / "a" / "hero")  # a class
    (folder / "train" / "helmet" / "a").symlink_to(elsewhere / "a" / "hero")  # is no part of another one
    (elsewhere / "a" / "hero" / "more").symlink_to(elsewhere / "more")  # more of its images
    data = get_data("imagefolder", folder)
    assert [data.train.targets.count(label) for label in (0, 1)] == [12, 12 + 8]
    assert "train/hero/more/000.jpg" in data.train.files
    assert not any("back" in file or "helmet/a/" in file for file in data.train.files)


def test_a_table_says_what_is_what(photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    rows = [
        (f"{s}/{c}/{i:03}.jpg", c) for s in ("train", "val") for c in ("helmet", "hero") for i in range(8)
    ]
    write_table(folder / "labels.csv", rows, "file,label")
    data = get_data("csv", folder, seed=3)
    assert data.classes == ["helmet", "hero"]
    assert [len(part) for part in (data.train, data.val, data.test)] == [22, 5, 5]
    assert all(get_labels(part).count(0) > 1 < get_labels(part).count(1) for part in (data.val, data.test))
    image, label = data.train[0]
    assert image.mode == "RGB"
    assert get_file_names(data.train)[0].split("/")[1] == data.classes[label]
    assert get_file_names(get_data("csv", folder, seed=3).test) == get_file_names(data.test)
    assert get_file_names(get_data("csv", folder, seed=4).test) != get_file_names(data.test)
    assert len(get_data("csv", folder, (0.5, 0.25, 0.25)).val) == 8


def test_a_table_may_name_the_splits_and_be_written_by_any_program(photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    splits = {"train": "Train", "val": "validation"}
    rows = [
        (c, f"{s}/{c}/{i:03}.jpg", splits[s]) for s in splits for c in ("helmet", "hero") for i in range(8)
    ]
    text = "\ufeffLabel;File;Split\r\n" + "\r\n".join(";".join(row) for row in rows)
    (folder / "table.csv").write_text(text, encoding="utf-8")
    data = get_data("csv", folder / "table.csv")
    # without a test set val is cut in two
    assert (len(data.train), len(data.val), len(data.test)) == (16, 8, 8)
    assert all(name.startswith("train/") for name in get_file_names(data.train))


def test_rows_that_cannot_be_used_are_named_by_their_number(photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    rows = [(f"train/{c}/{i:03}.jpg", c, "") for c in ("helmet", "hero") for i in range(12)]
    rows[2] = ("train/nowhere.jpg", "hero", "")
    rows[3] = (rows[3][0], "", "")
    rows[4] = (rows[4][0], "hero", "later")
    write_table(folder / "labels.csv", rows)
    data = get_data("csv", folder)
    assert len(data.problems) == 3
    assert "row 4: there is no file 'train/nowhere.jpg'" in data.problems[0]
    assert "row 5" in data.problems[1]
    assert "has 0 labels" in data.problems[1]
    assert "'later'" in data.problems[2]
    with pytest.raises(UserError, match=r"nowhere.*2 more"):
        check_problems(data)
    with pytest.raises(UserError, match="no column 'file'"):
        get_data("csv", write_table(tmp_path / "a.csv", [("a", "b")], "name,label"))
    with pytest.raises(UserError, match=r"labels\.csv"):
        get_data("csv", tmp_path / "nowhere")
    with pytest.raises(UserError, match="no image to train on"):
        get_data("csv", write_table(folder / "val.csv", [("train/hero/000.jpg", "hero", "val")]))
    with pytest.raises(UserError, match="at least two"):
        get_data("csv", write_table(folder / "one.csv", [("train/hero/000.jpg", "hero")] * 9, "file,label"))


# Several classes on one image


@pytest.fixture
def colours(tmp_path) -> Path:
    """A folder with a table: each image holds any of a red, a green and a blue square, or none."""
    folder = tmp_path / "colours"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        image = Image.new("RGB", (32, 32), (40, 40, 40))
        names = []
        for k, (name, there) in enumerate(
            zip(("red", "green", "blue"), rng.random(3) < (0.5, 0.3, 0.6), strict=True)
        ):
            if there:
                names.append(name)
                image.paste(
                    tuple(220 if k == c else 20 for c in range(3)), (k * 10, 4 * k, k * 10 + 10, 4 * k + 14)
                )
        image.save(folder / f"{i:03}.png")
        rows.append((f"{i:03}.png", "|".join(names)))
    write_table(folder / "labels.csv", rows, "file,label")
    return folder


@pytest.mark.draws
def test_several_classes_on_one_image_from_start_to_end(train, colours, tmp_path, exit_of, capsys):
    run = train(dataset="csv", data_dir=colours, epochs=12, lr=3e-3, augmentation="none")
    assert json.loads(run.config.read_text())["options"]["loss"] == "bce"
    classes = json.loads(run.classes.read_text())
    assert classes == ["blue", "green", "red"]
    metrics, thresholds = json.loads(run.metrics.read_text()), json.loads(run.thresholds.read_text())
    assert list(thresholds) == classes
    assert metrics["test_acc"] > 0.8
    with open(run.predictions, newline="") as file:
        rows = list(csv.DictReader(file))
    answers = [
        ((name in row["true"].split("|")), (name in row["predicted"].split("|")), float(row[f"p_{name}"]))
        for row in rows
        for name in classes
    ]
    assert metrics["test_acc"] == sum(truth == said for truth, said, _ in answers) / len(answers)
    assert metrics["test_exact_match"] == sum(
        set(r["true"].split("|")) == set(r["predicted"].split("|")) for r in rows
    ) / len(rows)
    for i, (_, said, p) in enumerate(answers):
        assert said == (p >= thresholds[classes[i % 3]]) or abs(p - thresholds[classes[i % 3]]) < 1e-5
    with open(run.log, newline="") as file:
        log = list(csv.DictReader(file))
    assert 0 <= float(log[-1]["val_f1"]) <= 1
    assert float(log[-1]["val_acc"]) > 0.8

    evaluate.main(evaluate.Options(run.folder, num_workers=0, batch_size=7, device="cpu"))
    again = json.loads((run / "evaluate-test.json").read_text())
    assert again == {
        name: pytest.approx(metrics[name], abs=1e-5) for name in metrics if name.startswith("test_")
    }
    moved = Path(shutil.copytree(colours, tmp_path / "others"))
    for path in moved.glob("*.png"):
        path.rename(path.with_name(f"x{path.name}"))
    lines = (moved / "labels.csv").read_text().splitlines()
    (moved / "labels.csv").write_text("\n".join([lines[0], *(f"x{line}" for line in lines[1:])]))
    evaluate.main(evaluate.Options(run.folder, data_dir=moved, num_workers=0, device="cpu"))
    assert json.loads((run / "evaluate-folder.json").read_text())["folder_acc"] > 0.8

    out = tmp_path / "out.csv"
    known = {row["file"]: row for row in rows}
    predict.main(predict.Options(run.folder, tuple(colours / name for name in known), csv=out, device="cpu"))
    with open(out, newline="") as file:
        for row in csv.DictReader(file):
            expected = known[Path(row["file"]).name]
            assert set(row["class"].split("|")) == set(expected["predicted"].split("|"))
            shares = [float(p) for p in row["probability"].split("|") if p]
            assert shares == sorted(shares, reverse=True)
            assert len(shares) == len([name for name in row["class"].split("|") if name])


def test_thresholds_are_those_with_the_best_f1():
    from evaluation.calibration import best_thresholds

    p = (torch.arange(60) + 0.5) / 60
    labels = torch.tensor([[int(i >= 40 or i == 20), 0] for i in range(60)])
    found = best_thresholds(torch.logit(torch.stack([p, p], dim=1)), labels, ["a", "never"])
    assert found["never"] == 0.5
    truth = np.array([i >= 40 or i == 20 for i in range(60)])
    p = (np.arange(60) + 0.5) / 60

    def f1(threshold: float) -> float:
        said = p >= threshold
        return 2 * (said & truth).sum() / (said.sum() + truth.sum())

    assert f1(found["a"]) == max(f1(t) for t in np.linspace(0.01, 0.99, 500))


# Custom data sets


def test_a_new_data_set_is_a_function_and_a_line(train, photos, monkeypatch):
    def mine(data_dir):
        files = sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*.jpg"))
        images = ImageDataset(data_dir, files, [int("hero" in name) for name in files], ["no hero", "hero"])
        return DatasetSplits(images, None, None, images.classes)

    monkeypatch.setitem(DATASETS, "mine", mine)
    run = train(dataset="mine", epochs=1, split=(0.6, 0.2, 0.2))
    assert [len(names) for names in json.loads(run.split.read_text()).values()] == [24, 8, 8]
    assert sys.modules["data"].DATASETS is DATASETS
