"""Weights & Biases without a key."""

import sys

import pytest

from core.errors import UserError


def test_wandb_without_a_key_is_kept_offline(train, caplog, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    run = train(trackers=("wandb",), epochs=1)
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    assert "wandb sync" in caplog.text


def test_without_wandb_it_is_said_how_to_get_it(train, project, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="wandb is not installed; pip install wandb"):
        train(trackers=("wandb",))
    assert not list(project.checkpoint_dir.iterdir())
