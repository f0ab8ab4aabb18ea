"""MixUp and CutMix: images and labels are mixed alike, and final metrics are those of whole images."""

import csv
import json

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader

from config import Config
from core.errors import UserError
from core.task import Task
from data import DataLoaders
from losses import get_loss
from metrics import get_metrics
from models import MyCNN
from training.mixup import mix_batches
from training.resolve import default_views

CPU = torch.device("cpu")
LOADER = DataLoader([(torch.zeros(3, 8, 8, dtype=torch.uint8), 0)] * 4, batch_size=2)
LOADERS = DataLoaders(LOADER, LOADER, LOADER, ["a", "b", "c"])


def picky(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss that takes labels (N,) and no probabilities."""
    return -logits.log_softmax(dim=1).gather(1, labels[:, None]).mean()


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([[1, 0, 1], [0, 0, 0]] * 3)]
)
def test_images_and_labels_are_mixed_alike(how, labels):
    torch.manual_seed(0)
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 8, 8)
    loader = DataLoader(list(zip(images, labels, strict=True)), batch_size=6)
    mixed = mix_batches(
        Config(mixup=how), DataLoaders(loader, loader, loader, list("abc")), get_loss("cross_entropy"), CPU
    )
    assert mixed.val is mixed.test is loader
    ((batch, soft),) = mixed.train
    values = batch.mean(dim=(1, 2, 3))
    share = values[1].item()  # of its own: the neighbour is 0
    assert 0 < share < 1
    assert torch.allclose(
        values, share * torch.arange(6.0) + (1 - share) * torch.arange(6.0).roll(1), atol=1e-5
    )
    hot = labels if labels.ndim == 2 else nn.functional.one_hot(labels, 3)
    assert torch.allclose(soft, share * hot + (1 - share) * hot.roll(1, 0), atol=1e-5)
    logits = torch.randn(6, 3)
    by_hand = -(soft * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert get_loss("cross_entropy")(logits, soft).item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_metrics_count_the_class_with_the_larger_share():
    logits = torch.eye(3) * 9 - 4
    soft = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.3, 0.7], [0.0, 0.1, 0.9]])
    for name, metric in get_metrics(["precision"], Task(["a", "b", "c"])):
        assert metric(logits, soft) == metric(logits, torch.tensor([0, 2, 2])), name
    for name, metric in get_metrics(["precision"], Task(["a", "b", "c"], multilabel=True)):
        assert metric(logits, soft) == metric(logits, torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 1]])), name


def test_mixed_runs_train_and_are_scored_on_whole_pictures(train):
    run = train(epochs=2, mixup="mixup")
    with open(run.log, newline="") as file:
        log = list(csv.DictReader(file))
    metrics = json.loads(run.metrics.read_text())
    assert metrics["val_loss"] == pytest.approx(float(log[metrics["best_epoch"] - 1]["val_loss"]), abs=1e-5)


def test_the_log_knows_mixed_batches_and_the_run_shows_them(train, monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr("evaluation.plots.image_grid", lambda _, titles: seen.extend(titles) or Figure())
    run = train(epochs=1, mixup="cutmix", metrics=("f1", "auc"), find_lr=True)
    with open(run.log, newline="") as file:
        (row,) = csv.DictReader(file)
    assert all(0 <= float(row[name]) <= 100 for name in ("acc", "f1", "auc", "val_auc"))
    assert any("|" in title for title in seen)


def test_imagenet_weights_classes_and_mixing_go_together():
    mix_batches(
        Config(mixup="mixup"),
        LOADERS,
        get_loss("cross_entropy", [1.0, 2.0, 3.0], "meta"),
        torch.device("meta"),
    )
    with pytest.raises(UserError, match="takes probabilities"):
        mix_batches(Config(mixup="mixup"), LOADERS, picky, CPU)


def test_none_mixes_nothing_and_an_unknown_way_is_refused():
    loss = nn.functional.cross_entropy
    assert mix_batches(Config(mixup="none"), LOADERS, loss, CPU) is LOADERS
    with pytest.raises(UserError, match="unknown mixup 'mixdown'"):
        mix_batches(Config(mixup="mixdown"), LOADERS, loss, CPU)


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_features_that_are_kept_and_mixing_exclude_each_other(how):
    assert default_views(Config(mixup=how), MyCNN(2, width=8).freeze()) == 0
    with pytest.raises(UserError, match=f"--cached-views 2: --mixup {how} needs"):
        mix_batches(Config(mixup=how, cached_views=2), LOADERS, nn.functional.cross_entropy, CPU)
