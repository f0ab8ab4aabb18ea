"""MixUp and CutMix: pictures and labels are mixed alike, and all figures are those of whole pictures."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from config import Config
from core.errors import UserError
from losses import get_loss
from models import MyCNN
from training.mixup import mix


def picky(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss that takes labels (N,) and no probabilities."""
    return -logits.log_softmax(dim=1).gather(1, labels[:, None]).mean()


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_pictures_and_loss_are_mixed_alike(how):
    torch.manual_seed(0)
    network, labels = SimpleNamespace(normalize=nn.Identity()), torch.tensor([0, 1, 2, 0, 1, 2])
    loss = mix(how, network, get_loss("cross_entropy"), 3)
    images = torch.stack([torch.full((3, 8, 8), float(i)) for i in range(6)])
    values = network.normalize(images).mean(dim=(1, 2, 3))
    share = values[1].item()  # of its own: the neighbour is 0
    assert 0 < share < 1
    assert torch.allclose(values, share * torch.arange(6.0) + (1 - share) * torch.arange(6.0).roll(1), atol=1e-5)
    logits, hot = torch.randn(6, 3), nn.functional.one_hot(labels, 3)
    by_hand = -((share * hot + (1 - share) * hot.roll(1, 0)) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert loss(logits, labels).item() == pytest.approx(by_hand.item(), abs=1e-5)
    plain = nn.functional.cross_entropy(logits, labels).item()
    assert loss(logits, labels).item() == pytest.approx(plain)  # another batch, of features: not mixed
    network.normalize(images)
    network.normalize.eval()
    assert torch.equal(network.normalize(images), images)
    assert loss(logits, labels).item() == pytest.approx(plain)


def test_mixed_runs_train_and_are_scored_on_whole_pictures(train):
    run = train(epochs=2, mix="mixup")
    with open(run.log, newline="") as file:
        log = list(csv.DictReader(file))
    metrics = json.loads(run.metrics.read_text())
    assert metrics["val_loss"] == pytest.approx(float(log[metrics["best_epoch"] - 1]["val_loss"]), abs=1e-5)


def test_weights_of_classes_and_mixing_go_together():
    network = SimpleNamespace(normalize=nn.Identity())
    mix("mixup", network, get_loss("cross_entropy", [1.0, 2.0, 3.0], "meta"), 3)  # as on a GPU
    with pytest.raises(UserError, match="takes probabilities"):
        mix("mixup", network, picky, 3)


def test_the_network_mixes_while_it_trains_and_only_then():
    torch.manual_seed(0)
    network, images = MyCNN(2, width=8), torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 8, 8)
    seen = []
    network.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    loss = nn.functional.cross_entropy
    assert mix("none", network, loss, 2) is loss
    assert mix("mixup", network, loss, 2) is not loss
    plain = network.normalize.eval()(images)
    for mode in (True, False):
        network.train(mode)(images)
        assert torch.equal(seen[-1], plain) != mode
    with pytest.raises(UserError, match="way to mix"):
        mix("mixdown", network, loss, 2)


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_features_that_are_kept_and_mixing_exclude_each_other(how):
    features = pytest.importorskip("training.feature_cache")
    frozen = MyCNN(2, width=8).freeze()
    assert features.choose_views(Config(mix=how), frozen) == "fresh"
    with pytest.raises(UserError, match=f"--views 2: --mix {how} needs"):
        features.choose_views(Config(mix=how, views=2), frozen)
