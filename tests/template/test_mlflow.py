"""MLflow keeps one run for one run."""

import json
import sys

import pytest

from config import parse_config
from core.errors import UserError


def test_mlflow_keeps_one_run_also_when_resumed(train, project):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    import main as main_script

    run = train(trackers=("mlflow",), epochs=1)
    main_script.main(parse_config(["--resume", str(run.folder), "--epochs", "2"]), project)
    client = mlflow.MlflowClient(f"sqlite:///{run / 'mlflow' / 'mlflow.db'}")
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert found.info.status == "FINISHED"
    assert found.data.params["batch_size"] == "8"
    assert [metric.step for metric in client.get_metric_history(found.info.run_id, "val_acc")] == [1, 2]
    assert found.data.metrics["final_test_acc"] == json.loads(run.metrics.read_text())["test_acc"]


def test_without_mlflow_it_is_said_how_to_get_it(train, project, monkeypatch):
    monkeypatch.setattr(sys.modules["poutyne.framework.callbacks.mlflow_logger"], "mlflow", None)
    with pytest.raises(UserError, match="mlflow is not installed; pip install mlflow"):
        train(trackers=("mlflow",))
    assert not list(project.checkpoint_dir.iterdir())
