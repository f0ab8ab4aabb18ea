"""Several processes: what they train is what one would, and none of them does anything twice."""

import csv
import hashlib
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import evaluate
from callbacks import ResumeCheckpoint
from config import Config
from core.errors import UserError
from data.demo import draw_demo
from data.loaders import EpochSampler
from models import MODELS
from models.classifier import Classifier
from Project import Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are made by fork")


@pytest.fixture(autouse=True)
def one_thread():
    """What OpenMP has started does not survive a fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def smooth(monkeypatch):
    """A network whose result does not depend on how a batch is shared out: no BatchNorm, no dropout."""

    def build(n_classes: int, pretrained: bool = False) -> Classifier:
        layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()]
        network = Classifier(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8, n_classes)
        return network.freeze() if pretrained else network

    monkeypatch.setitem(MODELS, "smooth", build)


@pytest.fixture
def ranks(tmp_path) -> Callable[..., list[dict]]:
    """Runs a function in n connected processes; returns what each has returned, or its error."""

    def call(n: int, work: Callable[[], dict]) -> list[dict]:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        children = []
        for rank in range(n):
            child = os.fork()
            if child == 0:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
                os.environ |= {
                    "LOCAL_WORLD_SIZE": str(n),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
                try:
                    result = work() or {}
                except UserError as error:
                    result = {"error": str(error)}
                except BaseException:
                    traceback.print_exc()
                    result = {"error": "traceback"}
                (tmp_path / f"rank{rank}.json").write_text(json.dumps(result))
                sys.stderr.flush()
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        return [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(n)]

    return call


def read(file: Path) -> list[dict[str, str]]:
    """A table's rows."""
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def there(options: dict) -> dict:
    """The same without options of parts that may have been deleted, see the README."""
    return {
        name: value
        for name, value in options.items()
        if name not in ("balance", "mixup") or hasattr(Config, name)
    }


def assert_close(run: Run, other: Run, tolerance: float = 1e-4) -> None:
    """The same log, figures and predictions, but for rounding and times."""
    assert len(read(run.log)) == len(read(other.log))
    for row, expected in zip(read(run.log), read(other.log), strict=True):
        for name in (name for name in row if "time" not in name):
            assert float(row[name]) == pytest.approx(float(expected[name]), rel=tolerance, abs=tolerance), (
                name
            )
    metrics, expected = json.loads(run.metrics.read_text()), json.loads(other.metrics.read_text())
    assert metrics == {name: pytest.approx(value, abs=tolerance) for name, value in expected.items()}
    rows, others = read(run.predictions), read(other.predictions)
    assert [row["file"] for row in rows] == [row["file"] for row in others]
    for row, one in zip(rows, others, strict=True):
        assert float(row["p_hero"]) == pytest.approx(float(one["p_hero"]), abs=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {"metrics": ("f1", "auc"), "grad_clip_norm": 1.0},
        there({"grad_accum_steps": 2, "lr_schedule": "cosine", "balance": "sampler"}),
        {"weights": "imagenet", "unfreeze_epoch": 2, "optimizer": "sgd"},
    ],
    ids=lambda options: "-".join(options),
)
def test_several_processes_train_what_one_does(train, ranks, project, options):
    options = {"model": "smooth", "batch_size": 6, "lr": 0.01, "epochs": 4, "patience": 4, **options}
    alone = train(run_name="alone", **options)
    for n in 2, 3:
        name = f"of {n}"
        assert ranks(n, lambda n=n, name=name: train(run_name=name, **options) and {}) == [{}] * n
        assert_close(Run(project.checkpoint_dir / name), alone)
        for row, one in zip(read(Run(project.checkpoint_dir / name).log), read(alone.log), strict=True):
            # counts: equal to the last digit
            assert (row["val_acc"], row["val_f1"]) == (one["val_acc"], one["val_f1"])
    assert sorted(path.name for path in project.checkpoint_dir.iterdir()) == ["alone", "of 2", "of 3"]


def test_every_image_is_scored_once_whatever_the_shares(train, ranks, project, tmp_path):
    data = tmp_path / "odd"
    draw_demo(data, {"train": 7, "val": 5, "test": 3}, seed=3)
    names = sorted(str(file.relative_to(data)) for file in (data / "test").rglob("*.jpg"))
    assert ranks(4, lambda: train(data_dir=data, run_name="r", batch_size=8) and {}) == [{}] * 4
    run = Run(project.checkpoint_dir / "r")
    rows = read(run.predictions)
    assert sorted(row["file"] for row in rows) == names
    metrics = json.loads(run.metrics.read_text())
    assert metrics["test_acc"] == sum(row["true"] == row["predicted"] for row in rows) / len(rows)
    best = read(run.log)[metrics["best_epoch"] - 1]
    assert metrics["val_acc"] == pytest.approx(float(best["val_acc"]))  # of 10 images in 4 processes
    assert metrics["val_loss"] == pytest.approx(float(best["val_loss"]), rel=1e-4)
    evaluate.main(evaluate.Options(run.folder, num_workers=0, device="cpu"))
    alone = json.loads((run / "evaluate-test.json").read_text())
    assert alone == {name: pytest.approx(metrics[name], abs=1e-5) for name in alone}
    (run / "evaluate-test.json").unlink()
    options = evaluate.Options(run.folder, num_workers=0, device="cpu", batch_size=9)
    assert ranks(3, lambda: evaluate.main(options)) == [{}] * 3
    assert json.loads((run / "evaluate-test.json").read_text()) == pytest.approx(alone, abs=1e-5)


def test_all_processes_keep_the_same_weights_and_decide_alike(train, ranks, monkeypatch):
    kept = []
    before = ResumeCheckpoint.on_epoch_end

    def noting(self, epoch_number, logs):
        weights = b"".join(value.numpy().tobytes() for value in self.network.state_dict().values())
        rates = [group["lr"] for group in self.model.optimizer.param_groups]
        figures = [logs[name] for name in ("loss", "val_acc", "val_f1")]
        kept.append(
            [hashlib.sha256(weights).hexdigest(), rates, figures, self.stop.wait, self.model.stop_training]
        )
        before(self, epoch_number, logs)

    monkeypatch.setattr(ResumeCheckpoint, "on_epoch_end", noting)
    options = there(
        {"model": "my_cnn", "epochs": 6, "patience": 2, "freeze": "none", "mixup": "mixup"}
    )  # with BatchNorm
    results = ranks(2, lambda: {"kept": train(run_name="a", **options) and kept})
    assert results[0]["kept"]
    assert results[0] == results[1]
    assert results[0]["kept"][-1][-1] or len(results[0]["kept"]) == 6


def test_resumed_by_another_number_of_processes(train, ranks, project):
    options = {"model": "smooth", "batch_size": 6, "lr": 0.01}
    whole = train(run_name="whole", epochs=4, patience=4, **options)
    ranks(3, lambda: train(run_name="cut", epochs=2, patience=4, **options) and {})
    cut = Run(project.checkpoint_dir / "cut")
    resumed = {"resume": cut.folder, "epochs": 4, "patience": 4, "run_name": "cut", **options}
    assert ranks(2, lambda: train(**resumed) and {}) == [{}] * 2
    assert_close(cut, whole)


def test_what_cannot_be_shared_is_refused(train, ranks, project, photos):
    for options, message in (
        ({"batch_size": 8}, "--batch-size 8 cannot be divided among 3 processes; try 9"),
        ({"batch_size": 9, "data_dir": photos / "nowhere"}, "nowhere"),
    ):
        results = ranks(3, lambda options=options: train(**options) and {})
        assert message in results[0]["error"]
        assert not project.checkpoint_dir.exists()


def test_shares_of_an_epoch_are_equally_large_and_hold_every_image(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    shares = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        sampler = EpochSampler(14, seed=0)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1]) == 4
    seen = [index for share in shares for index, _ in share]
    assert set(seen) == set(range(14))
    assert len(seen) - len(set(seen)) == 2
