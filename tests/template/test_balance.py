"""Classes of very different sizes: the small ones count more, or are drawn more often."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from config import Config
from core.errors import UserError
from data import get_data
from data.balance import balance
from data.demo import draw_demo
from data.loaders import EpochSampler


@pytest.fixture
def uneven(tmp_path) -> Path:
    """Twenty helmets to train with, and four heroes."""
    folder = tmp_path / "uneven"
    draw_demo(folder, {"train": 20, "val": 8, "test": 8}, seed=5)
    for path in sorted((folder / "train" / "hero").iterdir())[4:]:
        path.unlink()
    return folder


def test_weights_make_small_classes_count_as_much_as_large_ones(uneven, caplog):
    caplog.set_level("INFO")
    data = balance(Config(balance="weights"), get_data("imagefolder", uneven))
    assert data.image_weights is None
    assert data.class_weights * [20, 4] == pytest.approx([12, 12])
    assert "'hero' has a weight of 3" in caplog.text
    assert "'helmet' has a weight of 0.6" in caplog.text


def test_the_sampler_draws_small_classes_as_often_as_large_ones(uneven):
    data = get_data("imagefolder", uneven)
    weights = balance(Config(balance="sampler"), data).image_weights
    sampler = EpochSampler(24, seed=0, weights=weights)
    drawn = [data.train[i][1] for _ in range(20) for i, _ in sampler]
    assert len(drawn) == 20 * 24
    assert 0.4 < np.mean(drawn) < 0.6
    again = EpochSampler(24, seed=0, weights=weights)
    assert list(again) == list(EpochSampler(24, seed=0, weights=weights))


def test_a_loss_that_takes_no_weights_says_so(train, uneven, monkeypatch):
    from losses import LOSSES

    monkeypatch.setitem(
        LOSSES, "plain", lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels)
    )
    with pytest.raises(UserError, match="'plain' takes no class weights"):
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
