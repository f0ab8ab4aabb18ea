"""Trackers cannot stop a run."""

import torch

from callbacks import TRACKERS, get_trackers
from callbacks.SafeTracker import SafeTracker
from Project import Run


def test_a_tracker_that_fails_costs_a_warning(train, monkeypatch, caplog):
    calls = []

    class Failing:
        def __getattr__(self, name):
            def call(*args, **kwargs):
                calls.append(name)
                if name == "on_epoch_end":
                    raise ConnectionError("server gone")

            return call

    monkeypatch.setitem(TRACKERS, "failing", lambda *_: Failing())
    run = train(trackers=("failing",))
    assert calls.count("on_epoch_end") == 1
    assert calls[-1] == "end"
    assert caplog.text.count("server gone") == 1
    assert torch.load(run.last, weights_only=True)["epoch"] == 2

    def cannot_start(*_):
        raise OSError("read-only")

    monkeypatch.setitem(TRACKERS, "failing", cannot_start)
    train(trackers=("failing",), run_name="second")
    assert "read-only" in caplog.text


def test_no_tracker_is_started_for_none_and_csv(tmp_path):
    with get_trackers(("none", "csv"), Run(tmp_path), tmp_path / ".env", None) as trackers:
        assert trackers == []


def test_a_safe_tracker_returns_results():
    class AddOne:
        def log(self, x):
            return x + 1

    assert SafeTracker("add_one", AddOne).log(1) == 2
