"""Networks, freezing, callbacks, and runs of main.py from start to end, resumed, evaluated and used."""

import csv
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image
from torch import nn

import evaluate
import predict
from callbacks import TRACKERS, get_callbacks
from config import Config, parse_config
from core.environment import keep_freed_memory
from core.errors import UserError
from data import DatasetSplits
from models import MyCNN, get_model, resnet18, summarize
from Project import Project, Run
from training.preflight import check_batch
from training.resolve import resolve

# Networks


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_memory_that_is_freed_on_a_cpu_is_not_cleared_by_the_system_again():
    import resource

    keep_freed_memory(torch.device("cpu"))
    n, faults = 2**26, []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        assert len(b"x" * n) == n  # taken, written and freed
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[-1] < n / resource.getpagesize() / 4


def test_a_frozen_network_stays_as_it_is_while_its_head_trains():
    network = resnet18(3, pretrained=False).freeze()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainable = [p for p in network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trainable) == 512 * 3 + 3
    optimizer = torch.optim.Adam(trainable, lr=0.1)
    for _ in range(3):
        network.train()
        loss = nn.functional.cross_entropy(
            network(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)), torch.arange(4) % 3
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


def test_without_weights_everything_trains():
    for name in ("resnet18", "my_cnn"):
        network = get_model(name, 2, "none").train()
        assert all(p.requires_grad for p in network.parameters())
        assert all(module.training for module in network.modules())


@pytest.mark.parametrize("name", ["resnet18", "my_cnn"])
def test_networks_normalise_bytes_and_have_as_many_outputs_as_classes(name):
    torch.manual_seed(0)
    network = get_model(name, 7, "none").eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
    )
    with torch.no_grad():
        by_hand = network.head(network.backbone((images / 255 - mean) / std))
        assert network(images).shape == (2, 7)
        assert torch.allclose(network(images), by_hand, atol=1e-5)
    assert {"normalize.mean", "normalize.std"} <= set(network.state_dict())


def test_each_call_builds_a_network_of_its_own():
    first = resnet18(2, pretrained=False)
    weight = first.backbone.conv1.weight
    second = resnet18(5, pretrained=False)
    assert first.head.out_features == 2
    assert second.backbone.conv1.weight is not weight


def test_weights_from_a_file(tmp_path):
    source = MyCNN(2, width=8)
    torch.save(source.state_dict(), tmp_path / "run.pt")
    torch.save(source.backbone.state_dict(), tmp_path / "bare.pt")
    from models.classifier import load_weights

    for file in ("run.pt", "bare.pt"):
        for n_classes in (2, 4):
            network = MyCNN(n_classes, width=8)
            load_weights(network, tmp_path / file)
            assert torch.equal(network.backbone[0][0].weight, source.backbone[0][0].weight)
    with pytest.raises(UserError, match="does not fit"):
        load_weights(MyCNN(2, width=16), tmp_path / "run.pt")
    with pytest.raises(UserError, match="no file"):
        get_model("my_cnn", 2, tmp_path / "none.pt")
    torch.save({0: torch.zeros(1)}, tmp_path / "numbers.pt")
    with pytest.raises(UserError, match="not a state dict"):
        get_model("my_cnn", 2, tmp_path / "numbers.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match="not a state dict"):
        get_model("my_cnn", 2, tmp_path / "text.pt")


def test_a_hostile_file_of_weights_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (print, ("this must not run",))

    torch.save({"a": Hostile()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="not a state dict"):
        get_model("my_cnn", 2, tmp_path / "bad.pt")


def test_summary_counts_right_and_moves_nothing():
    network = resnet18(2, pretrained=False).freeze().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    text = summarize(network, 64)
    assert "Conv2d" in text
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters, 1,026 of them trainable" in text
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training

    class Odd(nn.Module):  # torchsummary cannot take a dict
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.inner({"x": x})["x"]

    assert "3 parameters" in summarize(Odd(), 8)


def test_a_shape_that_does_not_fit_is_explained(photos):
    from data import get_dataloaders

    _, val_dl, _ = get_dataloaders(photos / "train", photos / "val", num_workers=0)
    with pytest.raises(UserError, match=r"\(2, 3, 224, 224\) does not go through"):
        check_batch(nn.Sequential(nn.Flatten(), nn.Linear(10, 2)), val_dl)
    with pytest.raises(UserError, match=r"expected is \(2, 2\)"):
        check_batch(get_model("my_cnn", 5, "none"), val_dl)


# Callbacks


def simulate(config: Config, run: Run, losses: list[float], accuracies: list[float] | None = None):
    """Plays epochs with these validation metrics; returns the learning rate of each epoch, and the best epoch."""
    from poutyne import Model
    from poutyne.framework.callbacks.callbacks import CallbackList

    network = MyCNN(2, width=8)
    config = resolve(config, DatasetSplits([(None, 0)] * 9, [], [], ["a", "b"]), network)
    model = Model(network, torch.optim.Adam(network.parameters(), lr=1.0), "mse")
    run.folder.mkdir(parents=True, exist_ok=True)
    callbacks = [
        c
        for c in get_callbacks(config, network, run, [], None)
        if type(c).__name__ not in ("ProgressBar", "EpochLogger")
    ]
    callbacks = CallbackList(callbacks)
    callbacks.set_model(model)
    callbacks.set_params({"epochs": config.epochs, "steps": 1})
    model.stop_training = False
    callbacks.on_train_begin({})
    rates = []
    for epoch, loss in enumerate(losses, start=1):
        with torch.no_grad():
            network.head.bias.fill_(epoch)
        accuracy = (accuracies or [0.8] * len(losses))[epoch - 1]
        callbacks.on_epoch_end(
            epoch,
            {
                "epoch": epoch,
                "time": 1.0,
                "loss": loss,
                "acc": accuracy,
                "val_loss": loss,
                "val_acc": accuracy,
            },
        )
        rates.append(model.optimizer.param_groups[0]["lr"])
        if model.stop_training:
            break
    return rates, torch.load(run.best, weights_only=True)["head.bias"][0].item()


def test_a_loss_that_falls_never_cuts_the_rate(tmp_path):
    rates, _ = simulate(Config(epochs=20), Run(tmp_path / "run"), [2 - i / 20 for i in range(20)])
    assert rates == [1.0] * 20


def test_a_plateau_cuts_the_rate_and_then_stops_the_training_well_before_the_end(tmp_path):
    rates, _ = simulate(Config(epochs=20), Run(tmp_path / "run"), [0.5] * 20)
    assert len(rates) <= 12
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.1)


def test_the_first_of_equals_is_the_best(tmp_path):
    _, best = simulate(Config(epochs=20), Run(tmp_path / "run"), [0.6, 0.5, 0.5, 0.5])
    assert best == 2


def test_best_is_what_all_three_say_it_is(tmp_path):
    losses, accuracies = [0.9, 0.1, 0.5, 0.4], [0.6, 0.8, 0.9, 0.9]
    _, best = simulate(Config(epochs=20), Run(tmp_path / "run"), losses, accuracies)
    assert best == 2


# Runs


class Tracker:
    """A tracker that does nothing at all."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def read_log(run: Run) -> list[dict[str, str]]:
    """log.csv without its wall-clock columns."""
    with open(run.log, newline="") as file:
        return [{k: v for k, v in row.items() if "time" not in k} for row in csv.DictReader(file)]


def read(path):
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.draws
def test_a_run_leaves_a_folder_that_explains_itself(train, project, photos):
    run = train(run_name="first")
    assert run.folder == (project.checkpoint_dir / "first").resolve()
    assert [path.name for path in project.checkpoint_dir.iterdir()] == ["first"]
    assert read(run.classes) == ["helmet", "hero"]
    config = read(run.config)
    assert config["options"]["dataset"] == "imagefolder"
    assert config["options"]["weights"] == "none"
    assert config["options"]["image_size"] == 32
    assert config["options"]["lr"] == 1e-3
    assert config["versions"]["torch"]
    split = read(run.split)
    assert len(split["train"]) == 24
    assert not set(split["val"]) & set(split["test"])
    assert all((photos / name).is_file() for names in split.values() for name in names)
    assert [row["epoch"] for row in read_log(run)] == ["1", "2"]
    assert {"lr", "loss", "acc", "f1", "val_loss", "val_acc", "val_f1"} <= set(read_log(run)[0])
    for file in (run.best, run.last):
        assert torch.load(file, weights_only=True)
    for name in ("train_batch.png", "val_batch.png", "curves.png", "confusion_matrix.png"):
        with Image.open(run / name) as picture:
            assert min(picture.size) > 100
    assert "parameters" in (run / "model.txt").read_text()
    assert not list(run.folder.glob("*.tmp"))


def test_final_figures_are_counts_over_the_predictions(train):
    run = train()
    metrics = read(run.metrics)
    with open(run.predictions, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == read(run.split)["test"]
    assert all(row["file"].split("/")[1] == row["true"] for row in rows)
    right = sum(row["true"] == row["predicted"] for row in rows)
    assert metrics["test_acc"] == right / len(rows)
    for row in rows:
        shares = {name: float(row[f"p_{name}"]) for name in ("helmet", "hero")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(shares, key=shares.get)
    f1 = []
    for name in ("helmet", "hero"):
        hits = sum(row["true"] == row["predicted"] == name for row in rows)
        f1.append(2 * hits / max(1, sum((row["true"] == name) + (row["predicted"] == name) for row in rows)))
    assert metrics["test_f1"] == pytest.approx(sum(f1) / 2, abs=1e-6)


def test_the_scores_are_those_of_the_best_weights(train, monkeypatch):
    class Spoiler(Tracker):
        """Ruins the weights after the last epoch, when the best ones have been kept."""

        def set_model(self, model):
            self.model = model

        def on_epoch_end(self, epoch, logs):
            if epoch == 2:
                nn.init.constant_(self.model.network.head.weight, 100.0)

    monkeypatch.setitem(TRACKERS, "spoiler", lambda *_: Spoiler())
    run = train(trackers=("spoiler",))
    log, metrics = read_log(run), read(run.metrics)
    best = min(log, key=lambda row: float(row["val_loss"]))
    assert metrics["best_epoch"] == int(best["epoch"])
    assert metrics["val_acc"] == pytest.approx(float(best["val_acc"]), abs=1e-6)
    assert metrics["val_loss"] == pytest.approx(float(best["val_loss"]), abs=1e-5)


def test_the_seed_decides_all_but_the_split(train):
    runs = [train(run_name=str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
    logs, splits = [read_log(run) for run in runs], [read(run.split) for run in runs]
    assert logs[0] == logs[1]
    assert logs[0] != logs[2]
    assert splits[0] == splits[2]


@pytest.mark.parametrize("model", ["my_cnn", "frozen"])
def test_a_resumed_run_equals_one_never_stopped(train, project, monkeypatch, model, tmp_path):
    from models import MODELS

    class Interrupt(Tracker):
        def on_epoch_end(self, epoch, logs):
            if epoch == 3:
                raise KeyboardInterrupt  # after log and weights of epoch 3, before its last.pt

    monkeypatch.setitem(TRACKERS, "interrupt", lambda *_: Interrupt())
    # Patience so short that plateau and early stop both act, at epochs that a forgotten counter would move.
    options = {"epochs": 7, "patience": 3, "lr": 0.01, "seed": 0}
    if model == "frozen":
        torch.save(MODELS["my_cnn"](2).state_dict(), tmp_path / "weights.pt")
        options["weights"] = str(tmp_path / "weights.pt")
    whole = train(run_name="whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(run_name="stopped", trackers=("interrupt",), **options)
    stopped = Run(project.checkpoint_dir / "stopped")
    assert torch.load(stopped.last, weights_only=True)["epoch"] == 2
    assert len(read_log(stopped)) == 3

    config = parse_config(["--resume", str(stopped.folder), "--trackers", "none"])
    import main as main_script

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(77)
    main_script.main(config, project)
    assert read_log(stopped) == read_log(whole)
    assert read(stopped.metrics) == read(whole.metrics)
    ours, theirs = (torch.load(run.best, weights_only=True) for run in (stopped, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    ours, theirs = (torch.load(run.last, weights_only=True) for run in (stopped, whole))
    assert {k: ours[k] for k in ("epoch", "stopped", "best", "stop", "schedule")} == {
        k: theirs[k] for k in ("epoch", "stopped", "best", "stop", "schedule")
    }


def test_resume_refuses_what_would_change_the_run(train, exit_of):
    run = train(epochs=1)
    code, error = exit_of(
        lambda config: None, lambda: parse_config(["--resume", str(run.folder), "--lr", "0.5"])
    )
    assert code == 2
    assert "--lr" in error
    code, error = exit_of(
        lambda config: None, lambda: parse_config(["--resume", str(run.folder), "--resize", "pad"])
    )
    assert code == 2
    assert "--resize pad cannot be changed" in error
    code, error = exit_of(
        lambda config: None, lambda: parse_config(["--resume", str(run.folder), "--epochs", "0"])
    )
    assert code == 2
    longer = parse_config(["--resume", str(run.folder), "--epochs", "9"])
    assert (longer.epochs, longer.patience) == (9, 1)
    assert parse_config(["--resume", str(run.folder)]).model == "my_cnn"


def test_a_run_that_has_stopped_early_cannot_be_made_longer(train, project, monkeypatch, exit_of):
    import main as main_script

    run = train(epochs=6, patience=1, lr=1e-9)
    assert len(read_log(run)) < 6
    before = {path.name: path.read_bytes() for path in (run.config, run.last, run.log)}
    again = lambda config: main_script.main(config, project)  # noqa: E731
    words = ["--resume", str(run.folder), "--trackers", "none"]
    code, error = exit_of(again, lambda: parse_config([*words, "--epochs", "9"]))
    assert (code, "--patience" in error, len(error.splitlines())) == (2, True, 1)
    assert {path.name: path.read_bytes() for path in (run.config, run.last, run.log)} == before
    assert exit_of(again, lambda: parse_config(words)) == (0, "")


def test_runs_of_the_same_second_get_folders_of_their_own(train, project, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "now_")
    runs = [train(epochs=1).folder.name for _ in range(3)]
    assert len(set(runs)) == 3
    assert sorted(path.name for path in project.checkpoint_dir.iterdir()) == sorted(runs)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files that are not UTF-8")
def test_names_of_files_in_any_encoding(train, photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "old disk"))
    for path in sorted((folder / "val" / "hero").iterdir()):
        os.rename(path, os.fsencode(path.with_suffix("")) + b"\xe9.jpg")
    run = train(data_dir=folder, epochs=1)
    evaluate.main(evaluate.Options(run.folder, num_workers=0, device="cpu"))
    assert read(run / "evaluate-test.json")["test_acc"] == read(run.metrics)["test_acc"]
    assert len(run.predictions.read_bytes().split(b"\xe9.jpg")) == 5


def test_a_validation_set_smaller_than_a_batch(train, photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "tiny val"))
    for name in ("helmet", "hero"):
        for path in sorted((folder / "val" / name).iterdir())[2:]:
            path.unlink()
    for path in sorted((folder / "train" / "hero").iterdir())[6:]:
        path.unlink()
    # BatchNorm needs two values, 8 px leave one
    run = train(data_dir=folder, epochs=1, image_size=8, batch_size=18)
    assert read(run.metrics)["epochs"] == 1


def test_evaluate_gives_the_figures_of_main_and_leaves_them_alone(train):
    run = train()
    before = run.metrics.read_bytes()
    for split, size in ("test", 3), ("val", 32):
        evaluate.main(evaluate.Options(run.folder, split=split, batch_size=size, num_workers=0, device="cpu"))
        scores = read(run / f"evaluate-{split}.json")
        for name, value in scores.items():
            assert value == pytest.approx(read(run.metrics)[name], abs=1e-5)
    assert run.metrics.read_bytes() == before


def test_evaluate_finds_pictures_that_moved_and_scores_any_folder_of_classes(
    train, photos, tmp_path, exit_of
):
    run = train()
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    options = evaluate.Options(run.folder, data_dir=moved, num_workers=0, device="cpu")
    evaluate.main(options)
    assert read(run / "evaluate-test.json")["test_acc"] == read(run.metrics)["test_acc"]
    (moved / read(run.split)["test"][0]).unlink()  # some of them do not make it the run's own folder
    assert exit_of(evaluate.main, lambda: options)[0] == 2
    folder = tmp_path / "one class"
    shutil.copytree(photos / "val" / "hero", folder / "hero")
    evaluate.main(evaluate.Options(run.folder, data_dir=folder, num_workers=0, device="cpu"))
    assert 0 <= read(run / "evaluate-folder.json")["folder_acc"] <= 1
    (folder / "hero").rename(folder / "stranger")
    code, error = exit_of(evaluate.main, lambda: evaluate.Options(run.folder, data_dir=folder, device="cpu"))
    assert (code, "stranger" in error) == (2, True)


def test_predict_needs_the_run_folder_alone_and_keeps_its_word(train, photos, tmp_path, capsys):
    run = train()
    moved = Run(tmp_path / "elsewhere" / "model")
    shutil.copytree(run.folder, moved.folder)
    shutil.rmtree(run.folder)
    pictures = tmp_path / "pictures"
    shutil.copytree(photos / "val", pictures)
    out = tmp_path / "out.csv"
    predict.main(
        predict.Options(
            moved.folder, (pictures, pictures / "hero" / "000.jpg"), csv=out, batch_size=3, device="cpu"
        )
    )
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "class", "probability"]
    assert len(rows) == 16
    with open(moved.predictions, newline="") as file:
        known = {row["file"].removeprefix("val/"): row for row in csv.DictReader(file)}
    for row in rows:
        name = str(row["file"]).split("pictures/")[1]
        if name in known:
            assert row["class"] == known[name]["predicted"]
            assert float(row["probability"]) == pytest.approx(
                float(known[name][f"p_{row['class']}"]), abs=1e-4
            )
    assert "000.jpg" in capsys.readouterr().out


def test_predict_names_what_it_cannot_read_and_goes_on(train, photos, tmp_path, exit_of):
    run = train(epochs=1)
    folder = tmp_path / "mixed"
    shutil.copytree(photos / "val" / "hero", folder)
    (folder / "000.jpg").write_bytes(b"nonsense")
    (folder / "dir.jpg").mkdir()
    out = tmp_path / "out.csv"
    code, error = exit_of(predict.main, lambda: predict.Options(run.folder, (folder,), csv=out, device="cpu"))
    assert code == 1
    assert "000.jpg" in error
    assert len(out.read_text().splitlines()) == 1 + 7
    code, error = exit_of(
        predict.main, lambda: predict.Options(run.folder, (tmp_path / "nothing",), device="cpu")
    )
    assert (code, len(error.splitlines())) == (2, 1)


def test_paths_follow_base_dir_and_nothing_is_made_by_asking(tmp_path):
    project = Project(tmp_path / "base")
    for path in (project.data_dir, project.checkpoint_dir, project.cache_dir, project.env_file):
        assert tmp_path / "base" in path.parents
    assert not (tmp_path / "base").exists()


def test_load_run_data_the_project_is_found_and_else_it_is_the_demo(train, project, photos, monkeypatch):
    from data import choose_dataset, data_folder

    config = choose_dataset(Config(), project)
    assert config.dataset == "demo"
    assert not project.data_dir.exists()
    shutil.copytree(photos, project.data_dir)
    assert choose_dataset(Config(), project).dataset == "imagefolder"
    run = train(data_dir=None, epochs=1)
    assert read(run.config)["options"]["data_dir"] is None
    assert data_folder(choose_dataset(Config(), project), project) == project.data_dir


def test_the_demo_trains_from_scratch_where_weights_cannot_be_had(train, project, monkeypatch):
    monkeypatch.setattr(sys.modules["data.demo"], "IMAGES", {"train": 4, "val": 4})
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    run = train(data_dir=None, model="resnet18", epochs=1)
    assert read(run.config)["options"]["weights"] == "none"
    assert read(run.config)["options"]["dataset"] == "demo"


def offline(*args, **kwargs):
    """What a download does without a network."""
    import urllib.error

    raise urllib.error.URLError("no network")


@pytest.mark.parametrize("n_classes", [3])
def test_any_number_of_classes(train, photos, tmp_path, n_classes):
    folder = tmp_path / "three"
    shutil.copytree(photos, folder)
    for split in ("train", "val"):
        shutil.copytree(folder / split / "hero", folder / split / "écharpe rouge")
    run = train(data_dir=folder, epochs=1, batch_size=1000)
    assert len(read(run.classes)) == n_classes
    assert torch.load(run.best, weights_only=True)["head.weight"].shape[0] == n_classes


# The project as such

HERE = Path(__file__).resolve().parents[1]


def test_importing_does_nothing(tmp_path):
    code = (
        "import builtins, os, socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('this would go to the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import Project, callbacks, config, data, evaluation.results, losses, metrics, models, utils\n"
        "import training.resolve\n"
        "import main, evaluate, predict\n"
    )
    before = sorted(path for path in HERE.rglob("*") if "__pycache__" not in path.parts)
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "HOME": str(tmp_path),
        "TORCH_HOME": str(tmp_path / "torch"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "torch").exists()
    assert sorted(path for path in HERE.rglob("*") if "__pycache__" not in path.parts) == before


def test_nothing_personal_is_in_the_code():
    for path in [
        *HERE.glob("*.py"),
        *(p for folder in ("data", "models", "callbacks") for p in (HERE / folder).rglob("*.py")),
    ]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""["'](workspace|api_key)["']\s*[:=]\s*["']\w""", text), path
        assert not re.search(r"""(workspace|api_key)\s*=\s*["']\w""", text), path


def test_requirements_can_be_installed_on_todays_python():
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]
    assert "imaug" in {requirement.name for requirement in wanted}
    for requirement in wanted:
        assert requirement.specifier.contains(version(requirement.name), prereleases=True), requirement
        assert not any(clause.operator in ("==", "<", "<=") for clause in requirement.specifier), requirement
