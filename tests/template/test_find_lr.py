"""The learning-rate finder: it suggests a rate that suits, and leaves everything as it was."""

import csv

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from core.errors import UserError
from training.lr_finder import find_lr


def test_the_finder_computes_no_more_than_it_was_asked_for(tmp_path, monkeypatch):
    from poutyne import Model

    calls = []
    network = nn.Linear(2, 2)
    network.register_forward_hook(lambda *_: calls.append(1))
    loader = DataLoader([(torch.rand(2), 0)] * 50, batch_size=2)
    model = Model(network, torch.optim.SGD(network.parameters(), lr=0.1), "cross_entropy")
    find_lr(model, loader, tmp_path / "lr.png", steps=12)
    assert len(calls) == 12


@pytest.mark.draws
def test_the_finder_suggests_a_rate_and_changes_nothing(train):
    plain = train(run_name="plain")
    found = train(run_name="found", find_lr=True)
    assert (found / "lr_finder.png").stat().st_size > 5000
    logs = []
    for run in plain, found:
        with open(run.log, newline="") as file:
            logs.append([{k: v for k, v in row.items() if "time" not in k} for row in csv.DictReader(file)])
    assert logs[0] == logs[1]
    assert plain.metrics.read_text() == found.metrics.read_text()


def test_the_suggestion_is_below_where_the_loss_explodes(tmp_path):
    from poutyne import Model
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    x = torch.randn(64, 4)
    loader = DataLoader(TensorDataset(x, x @ torch.tensor([1.0, -2.0, 3.0, 0.5])[:, None]), batch_size=8)
    network = nn.Linear(4, 1)
    model = Model(network, torch.optim.SGD(network.parameters(), lr=0.01), "mse")
    before = network.weight.clone()
    rate = find_lr(model, loader, tmp_path / "curve.png")
    assert 1e-3 < rate < 0.3  # the curvature of this loss makes 1 explode
    assert torch.equal(network.weight, before)
    assert model.optimizer.param_groups[0]["lr"] == 0.01


def test_several_processes_are_refused(train, project, monkeypatch):
    monkeypatch.setattr("training.lr_finder.world_size", lambda: 3)
    with pytest.raises(UserError, match="--find-lr works in one process"):
        train(find_lr=True)
    assert not list(project.checkpoint_dir.iterdir())
