"""The template as a template: copied anywhere it trains, and every mistake put back into it is noticed."""

import csv
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from mistakes import MISTAKES, TEMPLATE, caught

ROOT = TEMPLATE.parent
SHARED = ROOT.parent / "shared"
needs_photographs = pytest.mark.skipif(
    not (SHARED / "data" / "daisy_roses").is_dir(), reason="needs real photographs and pretrained weights"
)


def copy_of_template(folder: Path) -> Path:
    """What `cp -r template folder` gives, without what runs may have left in it."""
    ignore = shutil.ignore_patterns("checkpoint", "dataset", ".cache", "__pycache__", ".*_cache")
    return Path(shutil.copytree(TEMPLATE, folder, ignore=ignore))


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs a script of a copy; fails with what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COMET_")}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env={**env, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def test_a_copy_trains_from_any_folder_and_refers_to_nothing_outside(tmp_path):
    project = copy_of_template(tmp_path / "anywhere" / "my project")
    home = tmp_path / "home"
    home.mkdir()
    settings = {"HOME": str(home), "TORCH_HOME": str(home / "torch")}
    options = ("--model", "my_cnn", "--image-size", "32", "--epochs", "1", "--run-name", "first")
    run(project / "main.py", *options, cwd=home, **settings)
    folder = project / "checkpoint" / "first"
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 1
    assert list((folder / "comet").glob("*.zip"))
    assert list(home.iterdir()) == []  # nothing beside the project
    run("evaluate.py", "checkpoint/first", cwd=project, **settings)
    run(project / "predict.py", folder, project / ".cache", "--csv", home / "out.csv", cwd=home, **settings)
    with open(home / "out.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 480
    run("main.py", "--resume", "checkpoint/first", "--epochs", "2", cwd=project, **settings)
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 2


def test_nothing_in_the_template_refers_to_what_is_around_it():
    for path in TEMPLATE.rglob("*"):
        if (
            path.is_file()
            and path.suffix in (".py", ".md", ".toml", ".txt", ".ipynb")
            and "checkpoint" not in path.parts
        ):
            text = path.read_text(encoding="utf-8")
            assert "../shared" not in text, path
            assert not re.search(r"/(work|home|root|tmp)/", text), path


@needs_photographs
def test_real_photographs_over_90_per_cent_within_10_epochs(tmp_path):
    project = copy_of_template(tmp_path / "flowers")
    options = ("--data-dir", SHARED / "data" / "daisy_roses", "--epochs", "10", "--trackers", "none", "--run-name", "a")
    run(project / "main.py", *options, cwd=tmp_path, TORCH_HOME=str(SHARED / "weights" / "torch_home"))
    folder = project / "checkpoint" / "a"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["val_acc"] > 0.9
    with open(folder / "log.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert statistics.mean(losses[-3:]) < statistics.mean(losses[:3])
    done = run(project / "predict.py", folder, SHARED / "data" / "flowers5" / "val" / "daisy", cwd=tmp_path)
    assert done.stdout.count(" daisy ") > done.stdout.count(" roses ")


def test_the_template_as_it_is_passes_what_the_mistakes_must_fail():
    noticed, end = caught(None, " or ".join(sorted({mistake.test for mistake in MISTAKES})))
    assert not noticed, end
    assert "passed" in end


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.row.replace(" ", "-"))
def test_a_mistake_put_back_is_noticed(mistake):
    noticed, end = caught(mistake, mistake.test)
    assert noticed, end


def test_the_table_of_mistakes_is_complete():
    """The list "what goes wrong in templates" has 22 rows; each is here at least once."""
    assert len(MISTAKES) >= 22
