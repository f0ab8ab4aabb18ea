"""TensorBoard gets all there is to see."""

import json
import sys

import pytest

from core.errors import UserError
from Project import Run


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads from a run's folder."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    found = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    return found | {tag: [(event.step, 0) for event in events.Images(tag)] for tag in events.Tags()["images"]}


def test_tensorboard_gets_batches_epochs_and_pictures(train):
    pytest.importorskip("tensorboard")
    run = train(trackers=("tensorboard",))
    found = scalars(run)
    assert [step for step, _ in found["batch/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in found["val_acc"]] == [1, 2]
    assert [step for step, _ in found["lr"]] == [1, 2]
    assert [step for step, _ in found["predictions"]] == [1, 2]
    assert len(found["confusion"]) == 1
    final = json.loads(run.metrics.read_text())
    assert found["final/test_acc"][0][1] == pytest.approx(final["test_acc"])


def test_without_tensorboard_it_is_said_how_to_get_it(train, project, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UserError, match="tensorboard is not installed; pip install tensorboard"):
        train(trackers=("tensorboard",))
    assert not list(project.checkpoint_dir.iterdir())
