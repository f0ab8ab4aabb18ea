"""Nothing runs in silence: long phases log how far they are, and the log says why the training changed or ended."""

import csv
import io
import logging
import runpy
import sys
from itertools import count

import pytest
import torch

import losses
import main as main_script
import predict
from config import parse_config
from core.progress import progress_bar
from evaluation.scoring import MONITOR
from models import get_model


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
    run = frozen(batch_size=4)
    predict.main(predict.Options(run.folder, (photos,), device="cpu", num_workers=0))
    for line in (
        "checking: 1 of 40 images",
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
        # pytest's, which keep basicConfig from doing anything
        patch.setattr(logging.getLogger(), "handlers", [])
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
    frozen(run_name="b", epochs=2, patience=2, lr_schedule="cosine")
    assert caplog.messages.count("training ended: all 2 epochs are done") == 1
    assert not any("learning rate cut" in line or "stopped early" in line for line in caplog.messages)


def rates(run):
    """Learning rate of each epoch."""
    with open(run.log, newline="") as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


def test_more_patience_continues_a_run_that_has_stopped_early(frozen, project, exit_of):
    run = frozen(run_name="stopped", epochs=9, patience=2)
    assert len(rates(run)) == 3
    words = ["--resume", str(run.folder), "--trackers", "none"]
    code, error = exit_of(lambda config: None, lambda: parse_config([*words, "--patience", "1"]))
    assert (code, error) == (2, "error: --patience 1: the run has 2, which can only be raised on resume")
    code, error = exit_of(
        lambda c: main_script.main(c, project), lambda: parse_config([*words, "--epochs", "12"])
    )
    assert (code, "such as --patience 4" in error, len(rates(run))) == (2, True, 3)
    # Half of 6 epochs without improvement, and one, until the next cut; 6 in all until the end.
    main_script.main(parse_config([*words, "--epochs", "12", "--patience", "6"]), project)
    assert rates(run) == pytest.approx([0.003] * 3 + [0.0003] * 4)
    assert torch.load(run.last, weights_only=True)["stopped"]


def test_more_patience_gives_the_run_that_had_it_from_the_start(frozen, project):
    whole = frozen(run_name="whole", epochs=9, patience=5, lr_schedule="constant")
    run = frozen(run_name="stopped", epochs=9, patience=2, lr_schedule="constant")
    main_script.main(
        parse_config(["--resume", str(run.folder), "--patience", "5", "--trackers", "none"]), project
    )
    assert rates(run) == rates(whole)
    ours, theirs = (torch.load(file, weights_only=True) for file in (run.last, whole.last))
    for name in ("epoch", "stopped", "stop"):
        assert ours[name] == theirs[name]
    assert run.metrics.read_bytes() == whole.metrics.read_bytes()
