"""Nothing runs in silence: long phases log how far they are, and the log says why the training changed or ended."""

import io
import logging
import runpy
import sys
from itertools import count

import pytest
import torch

import losses
import predict
from callbacks import MONITOR
from models import get_model
from utils import progress_bar


@pytest.fixture
def clock(monkeypatch):
    """Time as tqdm sees it, in seconds: a list of one number."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


@pytest.fixture
def frozen(train, tmp_path, monkeypatch):
    """Trains a head on a frozen backbone, with a loss that never improves, so that no metric does."""
    torch.save(get_model("my_cnn", 2, "none").state_dict(), tmp_path / "weights.pt")
    monkeypatch.setitem(losses.LOSSES, "still", lambda logits, labels, weight=None: logits.sum() * 0)
    return lambda **options: train(weights=str(tmp_path / "weights.pt"), loss="still", **options)


def test_a_line_every_30_seconds_without_a_terminal(clock, caplog):
    caplog.set_level(logging.INFO)
    unfinished = progress_bar("epoch 1/2", total=2)
    for _ in progress_bar("checking", range(12_000)):
        clock[0] += 0.01
    assert caplog.messages == [
        "checking: 3,000 of 12,000 images, about 01:30 left",
        "checking: 6,001 of 12,000 images, about 00:59 left",
        "checking: 9,001 of 12,000 images, about 00:29 left",
    ]
    unfinished.close()


def test_nothing_is_logged_of_short_phases_by_other_processes_or_on_a_terminal(clock, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    for _ in progress_bar("checking", range(100)):
        clock[0] += 0.29
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        for _ in progress_bar("checking", range(100)):
            clock[0] += 10
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in progress_bar("checking", range(100)):
        clock[0] += 10
    assert caplog.messages == []
    assert "checking:  50%" in terminal.getvalue()


def test_all_long_phases_say_how_far_they_are(frozen, photos, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("tqdm.std.time", count(0, 31).__next__)
    run = frozen(views=1, batch_size=4)
    predict.main(predict.Options(run.folder, (photos,), device="cpu", num_workers=0))
    for line in (
        "checking: 1 of 40 images",
        "features: 4 of 24 images",
        "epoch 2/2: 1 of 8 batches",
        "scoring: 1 of 2 batches",
        "predicting: 32 of 40 images",
    ):
        assert sum(message.startswith(line) for message in caplog.messages) >= 1, line
    assert not any("\r" in message or "\x1b" in message for message in caplog.messages)


def test_progress_of_predictions_does_not_mix_with_them(train, photos, monkeypatch, capsys):
    run = train(epochs=1)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])  # pytest's, which keep basicConfig from doing anything
        patch.setattr("tqdm.std.time", count(0, 31).__next__)
        patch.setattr(
            sys, "argv", ["predict.py", str(run.folder), str(photos), "--device", "cpu", "--num-workers", "0"]
        )
        runpy.run_path(predict.__file__, run_name="__main__")
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 40
    assert all(line.startswith(str(photos)) for line in out.splitlines())
    assert "predicting: 32 of 40 images" in err


def test_the_log_says_why_the_rate_is_cut_and_why_training_ends(frozen, caplog):
    caplog.set_level(logging.INFO)
    frozen(run_name="a", epochs=9, patience=2)
    reasons = [line for line in caplog.messages if "learning rate" in line or MONITOR + " has" in line]
    assert reasons == [
        f"learning rate cut from 0.003 to 0.0003: {MONITOR} has stopped improving",
        f"stopped early after epoch 3: {MONITOR} has not improved since epoch 1 (--patience 2)",
    ]
    assert not any("are done" in line for line in caplog.messages)
    caplog.clear()
    frozen(run_name="b", epochs=2, patience=2, schedule="cosine")
    assert caplog.messages.count("training ended: all 2 epochs are done") == 1
    assert not any("learning rate cut" in line or "stopped early" in line for line in caplog.messages)
