"""One class an image, or several: what differs between the two, and accuracy that is counted."""

import json

import numpy as np
import pytest
import torch

from core.task import Task, load_task, reset_thresholds
from metrics import accuracy
from Project import Run

ONE, SEVERAL = Task(["a", "b", "c"]), Task(["a", "b", "c"], multilabel=True)


@pytest.mark.parametrize(("task", "texts"), [(ONE, ["a", "c"]), (SEVERAL, ["a|c", "b", ""])])
def test_what_a_label_is_called_leads_back_to_it(task, texts):
    for text in texts:
        label = task.parse(text)
        assert task.describe(label) == text
        assert task.names(torch.tensor(label).tolist()) == [name for name in text.split("|") if name]


def test_a_class_may_be_called_anything_where_an_image_has_one():
    assert Task(["a|b", " c"]).parse("a|b") == 0
    assert Task(["a|b", " c"]).parse(" c") == 1


def test_predictions_follow_from_probabilities():
    logits = torch.tensor([[2.0, 1.0, -3.0], [-2.0, -1.0, -3.0]])
    assert ONE.activate(logits, 2.0).sum(dim=1).tolist() == pytest.approx([1, 1])
    assert ONE.activate(logits, 2.0).log().diff(dim=1)[0].tolist() == pytest.approx([-0.5, -2.0])
    assert ONE.decode(ONE.activate(logits)).tolist() == [0, 1]
    assert SEVERAL.activate(logits)[0].tolist() == pytest.approx([0.8808, 0.7311, 0.0474], abs=1e-4)
    assert SEVERAL.decode(SEVERAL.activate(logits)).tolist() == [[1, 1, 0], [0, 0, 0]]
    task = Task(SEVERAL.classes, multilabel=True, thresholds={"a": 0.9, "b": 0.2, "c": 0.04})
    assert task.decode(task.activate(logits)).tolist() == [[0, 1, 1], [0, 1, 1]]


def test_the_confidence_of_an_answer_is_the_probability_of_what_was_said():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    assert ONE.confidence(p, np.array([0, 1])).tolist() == [0.7, 0.3]
    said = np.array([[1, 0, 0], [0, 0, 1]])
    assert SEVERAL.confidence(p, said).tolist() == [
        pytest.approx([0.7, 0.8, 0.9]),
        pytest.approx([0.9, 0.7, 0.6]),
    ]


@pytest.mark.parametrize("task", [ONE, SEVERAL])
def test_the_folder_of_a_run_tells_its_task(tmp_path, task):
    run = Run(tmp_path)
    for name, content in task.files.items():
        (run / name).write_text(json.dumps(content))
    assert load_task(run).multilabel == task.multilabel
    assert load_task(run).classes == task.classes
    assert run.thresholds.exists() == task.multilabel
    if task.multilabel:
        run.thresholds.write_text(json.dumps({"a": 0.1, "b": 0.2, "c": 0.3}))
        assert load_task(run).thresholds["b"] == 0.2
    reset_thresholds(run)
    assert set(load_task(run).thresholds.values()) <= {0.5}
    assert run.thresholds.exists() == task.multilabel


def test_equal_counts_are_equal_accuracies_however_batches_are_cut():
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 3), torch.randint(0, 3, (50,))
    found = set()
    for size in (1, 3, 7, 16, 50):
        metric = accuracy(ONE)
        for batch in zip(logits.split(size), labels.split(size), strict=True):
            metric.update(*batch)
        found.add(float(metric.compute()))
    assert found == {(logits.argmax(dim=1) == labels).float().mean().item()}


def test_accuracy_counts_every_answer_where_an_image_can_have_several_classes():
    # the first batch could be probabilities, and is none
    logits = torch.tensor([[0.4, 0.9, 0.2], [3.0, -2.0, 0.1]])
    labels = torch.tensor([[1, 1, 1], [0, 0, 1]])
    metric = accuracy(SEVERAL)
    for batch in zip(logits.split(1), labels.split(1), strict=True):
        metric.update(*batch)
    assert float(metric.compute()) == pytest.approx(5 / 6)
