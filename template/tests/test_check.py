"""Looking before training: planted faults are found, none is invented, and what is known is not read again."""

import json
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import imgaug.augmenters as iaa
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torchvision.transforms import v2

import data.looks
from config import Config
from data import get_data, get_transforms
from data.balance import balance
from data.check import Options, check, look
from data.check import main as command
from data.demo import draw_demo
from data.loaders import EpochSampler
from data.MyDataset import MyDataset
from data.transformation import ImgAugTransform
from data.views import count_views, show_views
from utils import UserError

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    """Two classes, 20 pictures each to train with and 8 each in val/ and test/."""
    folder = tmp_path_factory.mktemp("clean") / "photos"
    draw_demo(folder, {"train": 20, "val": 8, "test": 8}, seed=5)
    return folder


@pytest.fixture
def spoiled(clean, tmp_path) -> Path:
    """A copy of it to plant faults in."""
    return Path(shutil.copytree(clean, tmp_path / "spoiled"))


def findings_of(folder: Path, tmp_path: Path, dataset: str = "imagefolder"):
    """All that is found in a folder."""
    return look(get_data(dataset, folder), tmp_path / "cache")


def files(groups: list[list[dict]]) -> set[frozenset[str]]:
    """The files of each group."""
    return {frozenset(item["file"] for item in group) for group in groups}


def test_nothing_is_invented_on_clean_data(clean, tmp_path):
    findings = findings_of(clean, tmp_path)
    assert findings.counts["train"] == {"helmet": 20, "hero": 20}
    assert findings.counts["test"] == {"helmet": 8, "hero": 8}
    for name in ("unreadable", "duplicates", "leaks", "conflicts", "missing_classes", "problems"):
        assert not getattr(findings, name), name
    assert findings.formats == {"JPEG": 72}
    assert findings.looked_at == 72
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
    picture = spoiled / "val" / "helmet" / "004.jpg"
    picture.write_bytes(picture.read_bytes()[:1500])
    (spoiled / "test" / "helmet" / "empty.jpg").write_bytes(b"")
    findings = findings_of(spoiled, tmp_path)
    assert set(findings.unreadable) == {"val/helmet/004.jpg", "test/helmet/empty.jpg"}
    bytes_twice = frozenset({"train/hero/000.jpg", "val/hero/same bytes.jpg"})
    encoded = frozenset({"train/hero/001.jpg", "test/hero/re-encoded.png", "test/hero/re-encoded.jpg"})
    resized = frozenset({"train/hero/002.jpg", "train/hero/double.webp", "val/hero/half.jpg", "test/hero/grey.png"})
    labelled = frozenset({"train/hero/003.jpg", "train/helmet/other label.jpg"})
    assert files(findings.duplicates) == {bytes_twice, encoded, resized, labelled}
    assert files(findings.leaks) == {bytes_twice, encoded, resized}
    assert files(findings.conflicts) == {labelled}
    item = next(item for group in findings.duplicates for item in group if "half" in item["file"])
    assert item == {"file": "val/hero/half.jpg", "split": "val", "label": "hero"}
    assert findings.formats == {"JPEG": 75, "PNG": 2, "WEBP": 1}


def test_colours_count_and_a_film_is_one_group(tmp_path):
    rng = np.random.default_rng(0)
    discs = []
    for i in range(20):
        for colour in (200, 60, 60), (60, 128, 60):  # as bright as each other
            disc = Image.new("RGB", (96, 96), "white")
            ImageDraw.Draw(disc).ellipse((10 + i, 20, 66 + i, 76), fill=colour)
            discs.append(disc)
    looks = [data.looks.look_at(disc, "PNG", disc.tobytes()) for disc in discs]
    groups = data.looks.same_pictures(looks)
    assert not [group for group in groups if len({i % 2 for i in group}) > 1]

    frame = np.asarray(discs[0], dtype=int)
    frames = [
        Image.fromarray((frame + rng.normal(0, 3, frame.shape)).clip(0, 255).astype(np.uint8)) for _ in range(900)
    ]
    looks = [data.looks.look_at(one, "PNG", one.tobytes()) for one in frames]
    assert [len(group) for group in data.looks.same_pictures(looks)] == [900]


def test_a_long_pan_is_not_one_picture():
    """Each frame is like the next, the first not like the last."""
    rng = np.random.default_rng(0)
    wide = Image.fromarray(rng.integers(0, 255, (20, 60, 3), dtype=np.uint8)).resize((1800, 600))
    frames = [wide.crop((2 * i, 0, 2 * i + 600, 600)).resize((96, 96)) for i in range(100)]
    groups = data.looks.same_pictures([data.looks.look_at(one, "PNG", one.tobytes()) for one in frames])
    assert max(map(len, groups)) < 20


def test_characters_are_found_again_when_resized_or_re_encoded():
    rng = np.random.default_rng(0)
    looks = []
    for _ in range(40):
        strokes = (rng.random((5, 5)) < 0.4).astype(np.uint8) * 255
        character = Image.fromarray(strokes).resize((28, 28)).convert("RGB")
        encoded = BytesIO()
        character.save(encoded, "JPEG", quality=75)
        for one in character, character.resize((56, 56)), Image.open(encoded).convert("RGB"):
            looks.append(data.looks.look_at(one, "PNG", one.tobytes()))
    assert data.looks.same_pictures(looks) == [[i, i + 1, i + 2] for i in range(0, 120, 3)]


def test_a_class_of_a_table_that_is_missing_somewhere(clean, tmp_path, caplog):
    rows = [f"train/{c}/{i:03}.jpg,{c},train" for c in ("helmet", "hero") for i in range(20)]
    rows += [f"val/helmet/{i:03}.jpg,helmet,{'val' if i < 4 else 'test'}" for i in range(8)]
    table = Path(shutil.copytree(clean, tmp_path / "data")) / "labels.csv"
    table.write_text("\n".join(["file,label,split", *rows, "val/hero/000.jpg,hero,test"]))
    check(get_data("csv", table), tmp_path / "cache", Config())
    assert "no picture to validate: hero" in caplog.text
    with pytest.raises(UserError, match="no picture to validate: hero"):
        check(get_data("csv", table), tmp_path / "cache", Config(strict=True))
    table.write_text(
        "\n".join(["file,label,split", *(row for row in rows if "hero" not in row), "val/hero/1.jpg,hero,val"])
    )
    shutil.copy(clean / "val" / "hero" / "001.jpg", table.parent / "val" / "hero" / "1.jpg")
    with pytest.raises(UserError, match="no picture to train with: hero"):
        check(get_data("csv", table), tmp_path / "cache", Config())


def test_a_class_that_is_missing_somewhere(spoiled, tmp_path):
    shutil.rmtree(spoiled / "val" / "hero")
    findings = findings_of(spoiled, tmp_path)
    assert findings.missing_classes == {"val": ["hero"]}
    assert "'hero' has no image" in findings.problems[0]
    with pytest.raises(UserError, match="'hero' has no image"):
        check(get_data("imagefolder", spoiled), tmp_path / "cache", Config())


def test_two_labels_for_one_file_of_a_table(clean, tmp_path):
    rows = [f"train/{c}/{i:03}.jpg,{c}" for c in ("helmet", "hero") for i in range(20)]
    table = Path(shutil.copytree(clean, tmp_path / "data")) / "labels.csv"
    table.write_text("\n".join(["file,label", *rows, "train/hero/000.jpg,helmet", "train/hero/gone.jpg,hero"]))
    findings = findings_of(table.parent, tmp_path, "csv")
    (group,) = findings.conflicts
    assert sorted((item["file"], item["label"]) for item in group) == [
        ("train/hero/000.jpg", "helmet"),
        ("train/hero/000.jpg", "hero"),
    ]
    assert "line 43: there is no file 'train/hero/gone.jpg'" in findings.problems[0]
    assert findings.unreadable == ["train/hero/gone.jpg"]


def test_mean_and_deviation_are_those_of_the_training_pictures(spoiled, tmp_path):
    for path in spoiled.rglob("*.jpg"):
        colour = (10, 100, 200) if path.parent.name == "hero" else (50, 100, 0)
        Image.new("RGB", (64, 48), colour if "train" in path.parts else "white").save(path.with_suffix(".png"))
        path.unlink()
    findings = findings_of(spoiled, tmp_path)
    assert findings.mean == pytest.approx([30 / 255, 100 / 255, 100 / 255], abs=1e-3)
    assert findings.std == pytest.approx([20 / 255, 0, 100 / 255], abs=1e-3)


def test_what_is_known_is_not_read_again(spoiled, tmp_path, monkeypatch):
    looked = []
    real = data.looks.look_at
    monkeypatch.setattr(data.looks, "look_at", lambda *args: looked.append(args) or real(*args))
    first = findings_of(spoiled, tmp_path)
    assert len(looked) == 72
    assert findings_of(spoiled, tmp_path) == first
    assert len(looked) == 72
    Image.new("RGB", (30, 20), "red").save(spoiled / "val" / "hero" / "003.jpg")
    assert findings_of(spoiled, tmp_path).sizes["smallest"] == [30, 20]
    assert len(looked) == 73
    shutil.copytree(spoiled, tmp_path / "elsewhere")
    assert findings_of(tmp_path / "elsewhere", tmp_path).looked_at == 72
    assert len(looked) == 72 * 2 + 1


def test_files_outside_of_the_folder_are_known_again_too(clean, tmp_path, monkeypatch):
    table = tmp_path / "labels.csv"
    rows = [f"{clean}/train/{c}/{i:03}.jpg,{c}" for c in ("helmet", "hero") for i in range(20)]
    table.write_text("\n".join(["file,label", *rows]))
    findings_of(table, tmp_path, "csv")
    monkeypatch.setattr(data.looks, "look_at", lambda *_: 1 / 0)
    assert not findings_of(table, tmp_path, "csv").unreadable


def test_what_a_data_set_of_ones_own_makes_of_a_file_is_not_taken_from_the_cache(clean, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in (clean / "train").rglob("*.jpg"):
        shutil.copy(path, mine / f"{path.parent.name}_{path.name}")
    before = findings_of(mine, tmp_path, "my_dataset")
    pictures = get_data("my_dataset", mine)
    for part in pictures.train, pictures.val, pictures.test:
        dataset = part.dataset
        dataset.__class__ = type("Darker", (type(dataset),), {"__getitem__": darker})
    assert look(pictures, tmp_path / "cache").mean == pytest.approx([m / 2 for m in before.mean], abs=0.01)


def darker(self, index):
    """A picture of half the brightness."""
    image, label = MyDataset.__getitem__(self, index)
    return image.point(lambda value: value // 2), label


def test_a_cache_that_is_spoiled_or_cannot_be_written_costs_a_warning(spoiled, tmp_path, caplog):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "looks.sqlite").write_bytes(b"this is no database" * 100)
    assert findings_of(spoiled, tmp_path).looked_at == 72
    assert "not kept" in caplog.text
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file in the way")
    assert findings_of(spoiled, tmp_path).looked_at == 72


def test_what_was_unreadable_is_looked_at_again(spoiled, tmp_path, monkeypatch):
    real = data.looks.look_at
    monkeypatch.setattr(data.looks, "look_at", lambda *_: 1 / 0)
    assert len(findings_of(spoiled, tmp_path).unreadable) == 72
    monkeypatch.setattr(data.looks, "look_at", real)
    assert findings_of(spoiled, tmp_path).unreadable == []


def test_a_training_does_not_wait_for_very_many_new_pictures(spoiled, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("data.check.AT_ONCE", 10)
    pictures = get_data("imagefolder", spoiled)
    assert check(pictures, tmp_path / "cache", Config()).looked_at == 0
    assert "python -m data.check" in caplog.text
    assert check(pictures, tmp_path / "cache", Config(normalize="data")).looked_at == 72
    assert check(pictures, tmp_path / "cache", Config()).looked_at == 72  # known by now


def test_training_warns_of_leaks_and_strict_refuses_them(spoiled, train, project, caplog):
    shutil.copy(spoiled / "train" / "hero" / "000.jpg", spoiled / "test" / "hero" / "leak.jpg")
    train(data_dir=spoiled, epochs=1)
    assert "found in more than one split: 1" in caplog.text
    assert "leak.jpg" in caplog.text
    before = list(project.checkpoint_dir.iterdir())
    with pytest.raises(UserError, match=r"--strict.*leak\.jpg"):
        train(data_dir=spoiled, epochs=1, strict=True)
    assert list(project.checkpoint_dir.iterdir()) == before


def test_the_command_tells_and_writes_what_it_found(spoiled, tmp_path, project, monkeypatch, exit_of):
    shutil.copy(spoiled / "train" / "hero" / "000.jpg", spoiled / "val" / "hero" / "leak.jpg")
    ignore = shutil.ignore_patterns("tests", "checkpoint", "dataset", ".*", "__pycache__")
    copy = Path(shutil.copytree(HERE, tmp_path / "copy", ignore=ignore))
    words = [sys.executable, "-m", "data.check", "--data-dir", str(spoiled), "--json", str(tmp_path / "found.json")]
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


# Augmentation


def test_the_views_of_the_pipeline_that_ships_are_all_different(clean):
    picture, _ = get_data("imagefolder", clean).train[0]
    for augmentation in ("photographs", "small", "characters"):
        transform, _ = get_transforms(64, augmentation)
        assert count_views(picture, transform, n=32, epochs=2, num_workers=4) == (64, 64)


def test_a_pipeline_that_is_seeded_wrongly_is_noticed(clean):
    picture, _ = get_data("imagefolder", clean).train[0]

    def pipeline(augment):
        return v2.Compose([v2.Resize((48, 48)), augment, v2.PILToTensor()])

    augmenter = iaa.Sequential([iaa.Affine(rotate=(-30, 30)), iaa.AdditiveGaussianNoise(scale=20)])

    def direct(image):  # imgaug's own random state, of which every worker has a copy
        return Image.fromarray(augmenter(image=np.asarray(image)))

    def fixed(image):
        torch.manual_seed(0)
        return ImgAugTransform(augmenter)(image)

    for wrong in (direct, fixed):
        unique, total = count_views(picture, pipeline(v2.Lambda(wrong)), n=32, epochs=2, num_workers=4)
        assert unique < total == 64
    assert count_views(picture, pipeline(ImgAugTransform(augmenter)), n=32, epochs=2, num_workers=4) == (64, 64)


@pytest.mark.draws
def test_views_are_shown_beside_the_picture_as_it_is(clean, tmp_path):
    pictures = get_data("imagefolder", clean)
    show_views(pictures.train, *get_transforms(64), n=3, file=tmp_path / "views.png")
    with Image.open(tmp_path / "views.png") as sheet:
        assert sheet.width > sheet.height > 300


# Normalisation and balance


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


@pytest.fixture
def uneven(spoiled) -> Path:
    """Twenty helmets to train with, and four heroes."""
    for path in sorted((spoiled / "train" / "hero").iterdir())[4:]:
        path.unlink()
    return spoiled


def test_weights_make_small_classes_count_as_much_as_large_ones(uneven, caplog):
    caplog.set_level("INFO")
    weights, images = balance("weights", get_data("imagefolder", uneven))
    assert images is None
    assert weights * [20, 4] == pytest.approx([12, 12])
    assert "'hero' counts 3 times in the loss, 'helmet' 0.6 times" in caplog.text


def test_the_sampler_draws_small_classes_as_often_as_large_ones(uneven):
    data = get_data("imagefolder", uneven)
    _, images = balance("sampler", data)
    sampler = EpochSampler(24, seed=0, weights=images)
    drawn = [data.train[i][1] for _ in range(20) for i, _ in sampler]
    assert len(drawn) == 20 * 24
    assert 0.4 < np.mean(drawn) < 0.6
    again = EpochSampler(24, seed=0, weights=images)
    assert list(again) == list(EpochSampler(24, seed=0, weights=images))


def test_a_loss_that_takes_no_weights_says_so(train, uneven, monkeypatch):
    from losses import LOSSES

    monkeypatch.setitem(LOSSES, "plain", lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels))
    with pytest.raises(UserError, match="'plain' takes no weight"):
        train(data_dir=uneven, epochs=1, loss="plain", balance="weights")
    train(data_dir=uneven, epochs=1, loss="plain", balance="sampler")


@pytest.mark.parametrize("how", ["weights", "sampler"])
def test_balanced_runs_train_and_are_scored_like_any_other(train, uneven, how):
    import evaluate

    run = train(data_dir=uneven, epochs=1, balance=how)
    evaluate.main(evaluate.Options(run.folder, num_workers=0, device="cpu"))
    final = json.loads(run.metrics.read_text())
    for name, value in json.loads((run / "evaluate-test.json").read_text()).items():
        assert value == pytest.approx(final[name], abs=1e-5)
