"""A mistake of the user's is one line that names it; the exit code is 2; nothing new is in checkpoint/."""

import builtins
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import callbacks
import evaluate
import main as main_script
import predict
from config import parse_config
from core.cli import parse
from core.errors import UserError
from data.demo import draw_demo
from losses import LOSSES
from Project import Project

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture
def run_main(project: Project, photos: Path, exit_of):
    """Runs main.py with these words on the command line, on the small data set unless told otherwise."""

    def call(*words: str) -> tuple[int, str]:
        if "--data-dir" not in words:
            words = (*words, "--data-dir", str(photos))
        small = ("--model", "my_cnn", "--image-size", "32", "--epochs", "1", "--num-workers", "0")
        chosen = [word for i in range(0, len(small), 2) for word in small[i : i + 2] if small[i] not in words]
        if "--trackers" not in words:
            chosen += ["--trackers", "none"]
        return exit_of(
            lambda config: main_script.main(config, project), lambda: parse_config([*words, *chosen])
        )

    return call


def assert_refused(outcome: tuple[int, str], project: Project, *named: str) -> None:
    """Exit code 2, one line on stderr with these words in it, and no run."""
    code, error = outcome
    assert code == 2, error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    for word in named:
        assert word in error
    assert not project.checkpoint_dir.exists() or not list(project.checkpoint_dir.iterdir())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--epochs", "0"), ("--epochs 0", "at least 1")),
        (("--batch-size", "0"), ("--batch-size 0", "at least 1")),
        (("--image-size", "-3"), ("--image-size -3",)),
        (("--lr", "0"), ("--lr",)),
        (("--weight-decay", "nan"), ("--weight-decay nan",)),
        (("--grad-clip-norm", "inf"), ("--grad-clip-norm inf",)),
        (("--unfreeze-epoch", "7"), ("--unfreeze-epoch 7", "ends with epoch 1")),
        (("--model", "vit_b_32", "--image-size", "100", "--weights", "none"), ("--image-size",)),
        (("--seed", "-1"), ("--seed",)),
        (("--split-seed", str(2**32)), ("--split-seed",)),
        (("--run-name", "../x"), ("--run-name",)),
        (("--run-name", "x" * 300), ("--run-name",)),
        (("--dataset", "demo"), ("--data-dir",)),
        (("--augmentation", "photgraphs"), ("augmentation", "did you mean 'photographs'")),
        (("--resize", "padd"), ("resize 'padd'", "did you mean 'pad'")),
        (("--split", "0.5", "0.5", "0.5"), ("--split 0.5 0.5 0.5",)),
        (("--dataset", "imagefoldr"), ("data set 'imagefoldr'", "did you mean 'imagefolder'")),
        (("--model", "resnet81"), ("model 'resnet81'", "did you mean 'resnet18'")),
        (("--trackers", "nonne"), ("tracker 'nonne'", "did you mean 'none'")),
        (("--device", "cuba"), ("device 'cuba'", "did you mean 'cpu'")),
        (("--device", "cuda:99"), ("'cuda:99'", "valid are: cpu")),
        (("--loss", "cross_entrophy"), ("loss", "did you mean 'cross_entropy'")),
        (("--metrics", "f2"), ("metric 'f2'", "did you mean 'f1'")),
        (("--weights", "nowhere.pt"), ("nowhere.pt",)),
        (("--weights", "imagenet"), ("my_cnn has no ImageNet weights",)),
        (("--data-dir", "nowhere"), ("no folder", "nowhere")),
        (("--resume", "nowhere"), ("no folder nowhere",)),
        (("--resume", "."), ("not a run folder",)),
    ],
)
def test_wrong_options(run_main, project, words, named):
    assert_refused(run_main(*words), project, *named)


@pytest.mark.parametrize("content", [None, b""])
def test_an_unreadable_image(run_main, project, photos, tmp_path, content):
    pytest.importorskip("data.check")  # without it, the image is found when it is needed
    folder = Path(shutil.copytree(photos, tmp_path / "spoiled"))
    image = folder / "val" / "hero" / "007.jpg"
    image.write_bytes(image.read_bytes()[:2000] if content is None else content)
    assert_refused(run_main("--data-dir", str(folder)), project, "007.jpg")


def test_a_class_without_images(run_main, project, photos, tmp_path):
    pytest.importorskip("data.check")
    folder = Path(shutil.copytree(photos, tmp_path / "spoiled"))
    (folder / "train" / "third").mkdir()
    assert_refused(run_main("--data-dir", str(folder)), project, "third")
    (folder / "train" / "third").rmdir()
    shutil.rmtree(folder / "train" / "helmet")
    assert_refused(run_main("--data-dir", str(folder)), project, "'helmet'")


def test_wrong_folders(run_main, project, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(run_main("--data-dir", str(tmp_path / "empty")), project, "no image in", "empty")

    folder = Path(shutil.copytree(photos, tmp_path / "written otherwise"))
    for name in ("train", "val"):
        (folder / name).rename(folder / name.title())
    assert_refused(run_main("--data-dir", str(folder)), project, "Train", "/train/<class>/")
    assert_refused(
        run_main("--data-dir", str(photos / "val" / "hero")), project, "no image in class folders", "hero"
    )
    folder = tmp_path / "loose"
    for name in ("train", "val"):
        shutil.copytree(photos / "val" / "hero", folder / name)
    assert_refused(run_main("--data-dir", str(folder)), project, "no image in class folders", "train")


def test_pretrained_weights_that_cannot_be_had(run_main, project, monkeypatch):
    import urllib.error

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    assert_refused(
        run_main("--model", "resnet18"), project, "ImageNet weights", "--weights FILE", "--weights none"
    )


def test_weights_that_do_not_fit(run_main, project, tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    assert_refused(run_main("--weights", str(tmp_path / "other.pt")), project, "does not fit")


def test_a_download_that_left_nonsense_behind(run_main, project, tmp_path):
    cache = tmp_path / "torch_home" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cache.parent.mkdir(parents=True)
    torch.save({"a": 1}, cache)
    assert_refused(run_main("--model", "resnet18"), project, "ImageNet weights", "--weights none")


def test_a_last_batch_that_batchnorm_cannot_train_on(run_main, project):
    assert_refused(
        run_main("--image-size", "8", "--batch-size", "23"), project, "(1, 3, 8, 8)", "--batch-size"
    )
    assert run_main("--image-size", "8", "--batch-size", "12") == (0, "")


def test_a_name_that_is_taken(run_main, project):
    assert run_main("--run-name", "twice")[0] == 0
    code, error = run_main("--run-name", "twice")
    assert (code, len(error.splitlines())) == (2, 1)
    assert "--resume" in error


def test_a_file_in_the_way(run_main, project):
    project.base_dir.mkdir()
    project.checkpoint_dir.write_text("I am no folder")
    code, error = run_main()
    assert code in (1, 2)
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("script", [evaluate, predict])
def test_a_run_folder_that_is_none(script, exit_of, tmp_path, photos):
    paths = {"paths": (photos,)} if script is predict else {}
    for folder in (tmp_path / "nowhere", photos):
        code, error = exit_of(script.main, lambda folder=folder: script.Options(folder, **paths))
        assert (code, len(error.splitlines())) == (2, 1)
        assert str(folder) in error


def test_a_spoiled_run_folder(train, exit_of, photos):
    run = train(epochs=1)
    run.best.write_bytes(run.best.read_bytes()[:5000])
    for script, paths in (evaluate, {}), (predict, {"paths": (photos,)}):
        code, error = exit_of(script.main, lambda s=script, p=paths: s.Options(run.folder, device="cpu", **p))
        assert (code, len(error.splitlines())) == (2, 1)
    torch.save(torch.nn.Linear(1, 1), run.best)  # an object, as others save it, and not its state dict
    code, error = exit_of(predict.main, lambda: predict.Options(run.folder, (photos,), device="cpu"))
    assert (code, len(error.splitlines())) == (2, 1)
    for file in (run.best, run.last):
        file.unlink()
        words = ["--resume", str(run.folder), "--trackers", "none"]
        code, error = exit_of(main_script.main, lambda words=words: parse_config(words))
        assert (code, file.name in error) == (2, True)
    run.config.write_text("{")
    code, error = exit_of(main_script.main, lambda: parse_config(["--resume", str(run.folder)]))
    assert (code, "config.json" in error) == (2, True)


@pytest.mark.parametrize("script", [evaluate, predict])
def test_a_batch_of_nothing(script, exit_of, photos):
    words = [str(photos), *([str(photos)] if script is predict else []), "--batch-size", "0"]
    code, error = exit_of(script.main, lambda: parse(script.Options, words))
    assert (code, error) == (2, "error: --batch-size 0: must be at least 1")


def test_evaluate_without_the_split(train, exit_of):
    run = train(epochs=1)
    run.split.unlink()
    code, error = exit_of(evaluate.main, lambda: evaluate.Options(run.folder, device="cpu"))
    assert (code, len(error.splitlines()), "split.json" in error) == (2, 1, True)


def test_classes_that_have_changed_since(train, exit_of, photos, tmp_path, project):
    folder = Path(shutil.copytree(photos, tmp_path / "growing"))
    run = train(data_dir=folder, epochs=1)
    before = run.config.read_bytes()
    for split in ("train", "val"):
        shutil.copytree(folder / split / "hero", folder / split / "third")
    words = ["--resume", str(run.folder), "--epochs", "2", "--trackers", "none"]
    for main, parse_options in (
        (evaluate.main, lambda: evaluate.Options(run.folder, device="cpu")),
        (lambda config: main_script.main(config, project), lambda: parse_config(words)),
    ):
        code, error = exit_of(main, parse_options)
        assert (code, len(error.splitlines()), "'third'" in error) == (2, 1, True)
    assert run.config.read_bytes() == before


def test_a_message_keeps_its_culprit():
    assert str(UserError("first line\nsecond line")) == "first line second line"
    assert (
        str(UserError("Caught UserError in worker 0.\nTraceback:\nutils.UserError: no such file\n"))
        == "no such file"
    )


def test_a_data_folder_that_was_mistyped_is_not_made(train, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        train(dataset="kmnist", data_dir=tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_a_table_may_be_a_link_or_no_plain_file(train, photos, tmp_path):
    run = train(epochs=1)
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    predict.main(predict.Options(run.folder, (photos,), csv=tmp_path / "link.csv", device="cpu"))
    assert (tmp_path / "link.csv").is_symlink()
    assert len((tmp_path / "real.csv").read_text().splitlines()) == 41
    predict.main(predict.Options(run.folder, (photos,), csv=Path("/dev/null"), device="cpu"))
    assert Path("/dev/null").is_char_device()


def test_a_table_that_cannot_be_written(exit_of, photos, tmp_path):
    for path in (tmp_path, tmp_path / "nowhere" / "out.csv"):
        code, error = exit_of(predict.main, lambda path=path: predict.Options(tmp_path, (photos,), csv=path))
        assert (code, "--csv" in error) == (2, True)


def test_printing_where_nobody_reads_or_in_letters_that_are_lacking():
    code = "from core.cli import run_script; run_script(lambda _: [print('é' * 99) for _ in range({})], lambda: None)"
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONIOENCODING": "ascii"}

    def start(lines: int) -> subprocess.Popen:
        words = [sys.executable, "-c", code.format(lines)]
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    assert start(1).communicate(timeout=60) == (b"\\xe9" * 99 + b"\n", b"")
    process = start(10**4)
    process.stdout.close()  # as `| head` does
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 141)


def test_evaluate_without_the_pictures(train, exit_of, photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "short lived"))
    run = train(data_dir=folder, epochs=1)
    shutil.rmtree(folder)
    code, error = exit_of(evaluate.main, lambda: evaluate.Options(run.folder, device="cpu"))
    assert (code, len(error.splitlines())) == (2, 1)
    assert "--data-dir" in error


def test_out_of_memory_says_what_to_lower(run_main, monkeypatch):
    def out(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setitem(LOSSES, "cross_entropy", out)
    code, error = run_main()
    assert code == 1
    assert len(error.splitlines()) == 1
    assert "--batch-size" in error


def test_odd_names_and_odd_pictures_train(run_main, project, tmp_path):
    folder = tmp_path / "mes données 写真"
    draw_demo(folder, {"train": 4, "val": 4})
    for split in ("train", "val"):
        (folder / split / "hero").rename(folder / split / "héros et compagnie")
        picture = Image.open(folder / split / "helmet" / "000.jpg")
        picture.convert("L").save(folder / split / "helmet" / "grey one.PNG")
        picture.convert("RGBA").save(folder / split / "helmet" / "größe.png")
        (folder / split / "helmet" / "notes.txt").write_text("not a picture")
    assert run_main("--data-dir", str(folder), "--run-name", "odd {name}", "--batch-size", "1000") == (0, "")


SCRIPTS = ("main.py", "evaluate.py", "predict.py", "export.py", "compare.py")


# some may be deleted
@pytest.mark.parametrize("script", [script for script in SCRIPTS if (HERE / script).exists()])
def test_help_needs_nothing_heavy(script, tmp_path):
    words = [sys.executable, "-X", "importtime", str(HERE / script), "--help"]
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    headings = [
        line.strip()
        for line in done.stdout.splitlines()
        if line in (" data", " network", " training", " run")
    ]
    assert len(headings) == (4 if script == "main.py" else 0)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tyro" in imported
    assert not {"torch", "poutyne", "imgaug", "comet_ml", "matplotlib", "numpy"} & imported
    # that names all options
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "usage" not in line)


def test_an_unknown_option_gets_a_suggestion(tmp_path):
    words = [sys.executable, str(HERE / "main.py"), "--epoch", "3"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--epochs" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_missing_system_library_is_named(monkeypatch):
    def lacking(name, *args, real=builtins.__import__):
        if name.startswith("imgaug"):
            raise ImportError("libGL.so.1: cannot open shared object file")
        return real(name, *args)

    monkeypatch.delitem(sys.modules, "data.transformation")
    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(UserError, match="libGL.*apt install libgl1"):
        importlib.import_module("data.transformation")


def test_pictures_that_are_traps_are_named_and_the_others_answered(train, photos, tmp_path, exit_of, capsys):
    folder = tmp_path / "traps"
    folder.mkdir()
    Image.new("L", (1, 65000)).save(folder / "narrow.png")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "again").symlink_to(folder)
    (folder / "once more").symlink_to(folder)
    Image.open(next(photos.rglob("*.jpg"))).save(folder / "good.jpg")
    run = train(epochs=1)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        predict.main(predict.Options(run.folder, (folder,), csv=tmp_path / "out.csv", device="cpu"))
    said = capsys.readouterr().err
    assert stop.value.code == 1
    assert "narrow.png (1 × 65000 pixels, too narrow)" in said
    assert "pipe.jpg (not a file)" in said
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


def test_whatever_a_damaged_file_makes_pillow_raise_names_the_file(photos, monkeypatch):
    from data.image_io import read_image

    def stumble(self):
        raise NotImplementedError

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", stumble)
    with pytest.raises(UserError, match=r"000\.jpg \(NotImplementedError"):
        read_image(photos / "val" / "hero" / "000.jpg")


def test_predict_refuses_what_cannot_work(train, exit_of, tmp_path):
    run = train(epochs=1)
    for paths, word in (
        ((), "no image was given"),
        ((Path("a" * 300 + ".jpg"),), "there is no file"),
    ):
        code, error = exit_of(predict.main, lambda p=paths: predict.Options(run.folder, p, device="cpu"))
        assert code == 2
        assert word in error


def test_a_resume_that_fails_leaves_the_run_as_it_was(train, project, exit_of, monkeypatch, tmp_path, photos):
    from config import parse_config
    from models import MODELS
    from models.MyCNN import MyCNN

    run = train(epochs=1)
    before = run.config.read_bytes()

    def missing(*_):
        raise UserError("it is not installed")

    def resumed(*words):
        return exit_of(
            lambda c: main_script.main(c, project),
            lambda: parse_config(["--resume", str(run.folder), *words]),
        )

    monkeypatch.setitem(callbacks.TRACKERS, "wandb", missing)
    code, _ = resumed("--epochs", "4", "--trackers", "wandb")
    assert (code, run.config.read_bytes()) == (2, before)
    with monkeypatch.context() as patch:
        patch.setitem(MODELS, "my_cnn", lambda n_classes, pretrained=False: MyCNN(n_classes, pretrained, 12))
        code, error = resumed("--epochs", "3")
    assert (code, "was its code changed" in error, run.config.read_bytes()) == (2, True, before)
    code, error = resumed("--epochs", "3", "--data-dir", str(tmp_path / "nowhere"))
    assert (code, "have moved, give their folder with --data-dir" in error) == (2, True)
    assert resumed("--epochs", "3")[0] == 0


def test_a_folder_that_is_named_gets_nothing_downloaded_or_drawn_into_it(
    train, photos, tmp_path, monkeypatch
):
    import data
    from core.files import write_json

    run = train(epochs=1)
    read = json.loads(run.config.read_text())
    for name in {"demo", "kmnist"} & set(data.CACHE_FOLDERS):
        write_json(run.config, {**read, "options": {**read["options"], "dataset": name, "data_dir": None}})
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        for label in "helmet", "hero":
            (folder / label).mkdir()
            Image.open(photos / "val" / label / "000.jpg").save(folder / label / "1.jpg")
        files = sorted(folder.rglob("*"))
        if name == "demo":
            monkeypatch.setattr(
                sys.modules["data.demo"], "draw_demo", lambda *_: pytest.fail("it would be drawn")
            )
        else:
            monkeypatch.setitem(data.DATASETS, name, lambda *_: pytest.fail("it would be downloaded"))
        evaluate.main(evaluate.Options(run.folder, data_dir=folder, num_workers=0, device="cpu"))
        assert sorted(folder.rglob("*")) == files
