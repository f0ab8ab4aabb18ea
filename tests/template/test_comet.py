"""Comet without a key, with one, resumed, without an answer, missing."""

import json
import shlex
import sys
import zipfile
from pathlib import Path

import pytest

from config import parse_config
from core.errors import UserError
from Project import Run

pytest.importorskip("comet_ml")


def messages(run: Run) -> list[list[dict]]:
    """What each archive of a run holds, oldest first."""
    archives = sorted((run / "comet").glob("*.zip"), key=lambda path: path.stat().st_mtime)
    found = []
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            lines = archive.read("messages.json").decode().splitlines()
            found.append([json.loads(line) for line in lines])
    return found


def metrics(lines: list[dict]) -> list[tuple[str, float, int | None]]:
    """(name, value, epoch) of each metric."""
    found = [line["payload"] for line in lines if line["type"] == "metric_msg"]
    return [(m["metric"]["metricName"], m["metric"]["metricValue"], m["metric"].get("epoch")) for m in found]


def test_without_a_key_an_archive_is_kept_and_complete(train, caplog):
    run = train(trackers=("comet",))
    (lines,) = messages(run)
    logged = metrics(lines)
    for name in ("loss", "acc", "val_loss", "val_acc", "lr"):
        assert [epoch for key, _, epoch in logged if key == name] == [1, 2], name
    final = json.loads(run.metrics.read_text())
    for name, value in final.items():
        assert (f"final_{name}", pytest.approx(value)) in [(key, found) for key, found, _ in logged]
    text = json.dumps(lines)
    assert "batch_size" in text
    assert "confusion" in text
    assert "best.pt" in text
    assert "comet upload" in caplog.text


def test_a_resumed_run_goes_on_with_the_same_experiment(train, project, photos, caplog):
    import main as main_script

    run = train(trackers=("comet",), epochs=1)
    key = (run / "comet" / "experiment_key.txt").read_text()
    main_script.main(parse_config(["--resume", str(run.folder), "--epochs", "2"]), project)
    assert (run / "comet" / "experiment_key.txt").read_text() == key
    first, second = messages(run)
    assert {epoch for name, _, epoch in metrics(first) if name == "val_acc"} == {1}
    assert {epoch for name, _, epoch in metrics(second) if name == "val_acc"} == {2}
    names = [path.name for path in (run / "comet").glob("*.zip")]
    told = shlex.split(caplog.text.rpartition("comet upload ")[2])
    assert sorted(Path(word).name for word in told) == sorted(names)
    assert all(name.startswith(key.strip()) for name in names)


def test_a_server_that_does_not_answer_leaves_an_archive(train, monkeypatch, caplog):
    import comet_ml

    online = []

    def start(online_=online, **settings):
        if settings["online"]:
            online_.append(settings)
            raise ConnectionError("no answer")
        return real(**settings)

    real = comet_ml.start
    monkeypatch.setenv("COMET_API_KEY", "x" * 25)
    monkeypatch.setattr(comet_ml, "start", start)
    run = train(trackers=("comet",), epochs=1)
    assert len(online) == 1
    assert len(messages(run)) == 1
    assert "no answer" in caplog.text


class Online:
    """What comet_ml.start returns where a server answers: it records."""

    alive, url = True, "https://example.org/experiment"

    def __init__(self, **settings):
        import comet_ml

        self.calls = [
            ("start", (), {**settings, "key": comet_ml.config.get_api_key(None, comet_ml.get_config())})
        ]

    def get_key(self):
        return "k" * 32

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def test_with_a_key_in_the_projects_env_file_it_reports_online(train, project, monkeypatch, caplog):
    import comet_ml

    started = []
    monkeypatch.setenv("COMET_API_KEY", "")  # so that what the file adds is taken away again
    monkeypatch.delenv("COMET_API_KEY")
    monkeypatch.setattr(
        comet_ml, "start", lambda **settings: started.append(Online(**settings)) or started[-1]
    )
    project.base_dir.mkdir()
    project.env_file.write_text("COMET_API_KEY=abcdefghijklmnopqrstuvwxy\n")
    run = train(trackers=("comet",))
    monkeypatch.delenv("COMET_API_KEY")
    (experiment,) = started
    settings = experiment.calls[0][2]
    assert settings["online"] is True
    assert settings["key"] == "abcdefghijklmnopqrstuvwxy"
    assert [kwargs["epoch"] for name, _, kwargs in experiment.calls if name == "log_metrics" and kwargs] == [
        1,
        2,
    ]
    assert {"log_parameters", "log_confusion_matrix", "log_model"} <= {
        name for name, _, _ in experiment.calls
    }
    assert experiment.calls[-1][0] == "end"
    assert experiment.url in caplog.text
    assert not list((run / "comet").glob("*.zip"))


def test_an_empty_key_hides_no_other(train, project, monkeypatch, tmp_path):
    import comet_ml

    started = []
    (tmp_path / "own.config").write_text("[comet]\napi_key=abcdefghijklmnopqrstuvwxy\n")
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path / "own.config"))
    monkeypatch.setattr(
        comet_ml, "start", lambda **settings: started.append(Online(**settings)) or started[-1]
    )
    project.base_dir.mkdir()
    project.env_file.write_text("COMET_API_KEY=\n")
    train(trackers=("comet",), epochs=1)
    assert started[0].calls[0][2]["key"] == "abcdefghijklmnopqrstuvwxy"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("broken"), SystemExit(143)])
def test_the_experiment_is_ended_however_the_run_ends(train, project, monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr("callbacks.ProgressBar.on_epoch_end", fail)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        train(trackers=("comet",), run_name="ended")
    (lines,) = messages(Run(project.checkpoint_dir / "ended"))
    assert ("val_acc", 1) in [(name, epoch) for name, _, epoch in metrics(lines)]


def test_a_tracker_that_is_not_installed_says_how_to_get_it(train, project, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet_ml", None)
    with pytest.raises(UserError, match="pip install comet_ml"):
        train(trackers=("comet",))
    assert not list(project.checkpoint_dir.iterdir())
    train(trackers=("none",))


def test_comet_is_offered_where_it_was_misspelt(train, project):
    with pytest.raises(UserError, match="tracker 'commet'.*did you mean 'comet'"):
        train(trackers=("commet",))
    assert not project.checkpoint_dir.exists()
