"""The template as a template: copied anywhere it trains, and every mistake put back into it is noticed."""

import csv
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from mistakes import MISTAKES, TEMPLATE, caught

ROOT = TEMPLATE.parent
SHARED = ROOT.parent / "shared"
needs_photographs = pytest.mark.skipif(
    not (SHARED / "data" / "daisy_roses").is_dir(), reason="needs real photographs and pretrained weights"
)

QUICK = [
    "--dataset",
    "demo",
    "--model",
    "my_cnn",
    "--image-size",
    "32",
    "--num-workers",
    "0",
    "--device",
    "cpu",
]


def copy_of_template(folder: Path) -> Path:
    """What `cp -r template folder` gives, without what runs may have left in it."""
    ignore = shutil.ignore_patterns("checkpoint", "dataset", ".cache", "__pycache__", ".*_cache")
    return Path(shutil.copytree(TEMPLATE, folder, ignore=ignore))


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs a script of a copy; fails with what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COMET_")}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**env, **environment},
        capture_output=True,
        text=True,
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
    # nothing beside the project
    assert [path for path in home.iterdir() if not path.name.startswith(".")] == []
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


def start(project: Path, *words: str) -> subprocess.Popen:
    """Starts main.py of a copy; a background job of a shell would ignore SIGINT, this one does not."""
    return subprocess.Popen(
        [sys.executable, "main.py", *words],
        cwd=project,
        env={**os.environ, "HOME": str(project)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_epoch(process: subprocess.Popen, run_dir: Path, epoch: int) -> list[int]:
    """Waits until this epoch stands in log.csv, two minutes at most; returns the epochs in it."""
    epochs: list[int] = []
    for _ in range(1200):
        if (run_dir / "last.pt").exists():
            with open(run_dir / "log.csv", newline="") as file:
                epochs = [int(row["epoch"]) for row in csv.DictReader(file)]
        if epoch in epochs or process.poll() is not None:
            break
        time.sleep(0.1)
    return epochs


@pytest.mark.parametrize(
    ("stop", "tell"),
    [
        (signal.SIGINT, os.kill),
        (signal.SIGINT, os.killpg),
        (signal.SIGTERM, os.kill),
        (signal.SIGTERM, os.killpg),
    ],
    ids=["SIGINT", "SIGINT-to-all", "SIGTERM", "SIGTERM-to-all"],  # to all: what a terminal and `timeout` do
)
def test_a_stopped_run_ends_its_tracker_and_can_be_resumed(tmp_path, stop, tell):
    project = copy_of_template(tmp_path / "project")
    run_dir = project / "checkpoint" / "a"
    process = start(
        project,
        *[
            "--model",
            "my_cnn",
            "--image-size",
            "32",
            "--epochs",
            "200",
            "--patience",
            "200",
            "--run-name",
            "a",
        ],
    )
    try:
        done = len(wait_for_epoch(process, run_dir, 1))
        tell(process.pid, stop)
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + stop, error
    assert "Traceback" not in error
    assert error.splitlines()[-1] == "stopped; to continue: python main.py --resume checkpoint/a"
    (archive,) = (run_dir / "comet").glob("*.zip")
    assert zipfile.ZipFile(archive).testzip() is None

    process = start(project, "--resume", "checkpoint/a", "--trackers", "none")
    try:
        epochs = wait_for_epoch(process, run_dir, done + 2)
    finally:
        process.kill()
        process.communicate()
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= done + 2


def test_workers_that_are_not_forked_give_the_same_views(tmp_path):
    """Python 3.14 and macOS start workers afresh, with all that they need pickled."""
    project = copy_of_template(tmp_path / "project")
    (project / "compare.py").write_text(
        "from pathlib import Path\n"
        "from data import get_dataloaders\n"
        "from data.demo import draw_demo\n"
        "if __name__ == '__main__':\n"
        "    draw_demo(Path('d'), {'train': 6, 'val': 4})\n"
        "    views = []\n"
        "    for options in ({'num_workers': 0}, {'num_workers': 2, 'multiprocessing_context': 'spawn'}):\n"
        "        train_dl, _, _ = get_dataloaders('d/train', 'd/val', batch_size=12, **options)\n"
        "        views.append([next(iter(train_dl))[0] for _ in range(2)])\n"
        "    assert all((a == b).all() for a, b in zip(*views))\n"
        "    assert (views[0][0] != views[0][1]).any()\n"
    )
    run("compare.py", cwd=project)


@needs_photographs
def test_real_photographs_over_90_per_cent_within_10_epochs(tmp_path):
    project = copy_of_template(tmp_path / "flowers")
    options = (
        "--data-dir",
        SHARED / "data" / "daisy_roses",
        "--epochs",
        "10",
        "--trackers",
        "none",
        "--run-name",
        "a",
    )
    run(project / "main.py", *options, cwd=tmp_path, TORCH_HOME=str(SHARED / "weights" / "torch_home"))
    folder = project / "checkpoint" / "a"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["val_acc"] > 0.9
    with open(folder / "log.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert statistics.mean(losses[-3:]) < statistics.mean(losses[:3])
    done = run(project / "predict.py", folder, SHARED / "data" / "flowers5" / "val" / "daisy", cwd=tmp_path)
    assert done.stdout.count(" daisy ") > done.stdout.count(" roses ")


@pytest.mark.skipif(not (SHARED / "data" / "kmnist").is_dir(), reason="needs pictures of characters")
def test_characters_over_95_per_cent_within_a_few_epochs(tmp_path):
    project = copy_of_template(tmp_path / "characters")
    options = (
        "--dataset",
        "kmnist",
        "--data-dir",
        SHARED / "data" / "kmnist",
        "--model",
        "my_cnn",
        "--epochs",
        "8",
    )
    run(project / "main.py", *options, "--trackers", "none", "--run-name", "a", cwd=tmp_path)
    metrics = json.loads((project / "checkpoint" / "a" / "metrics.json").read_text())
    assert metrics["test_acc"] > 0.95


@pytest.mark.exhaustive
def test_every_network_that_torchvision_lists_can_be_built_and_used(tmp_path):
    """Without weights, on bytes, frozen and not; the two largest, of 0.6 billion parameters each, are left out."""
    project = copy_of_template(tmp_path / "project")
    (project / "all_networks.py").write_text(
        "import torch, torchvision\n"
        "from models import get_model, native_image_size\n"
        "torch.nn.init.trunc_normal_ = lambda t, mean=0, std=1, **_: t.data.normal_(mean, std)  # much faster\n"
        "names = set(torchvision.models.list_models(module=torchvision.models)) - {'vit_h_14', 'regnet_y_128gf'}\n"
        "for name in sorted(names):\n"
        "    size, fixed = native_image_size(name)\n"
        "    size = size if fixed else 96\n"
        "    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)\n"
        "    network = get_model(name, 3, 'none').train()\n"
        "    with torch.no_grad():\n"
        "        assert network(images).shape == (2, 3), name\n"
        "        assert network.freeze().train()(images).shape == (2, 3), name\n"
        "    trained = [n for n, p in network.named_parameters() if p.requires_grad]\n"
        "    assert trained == ['head.weight', 'head.bias'], name\n"
        "    assert not any(module.training for module in network.backbone.modules()), name\n"
        "    print(name, flush=True)\n"
    )
    done = run("all_networks.py", cwd=project)
    assert len(done.stdout.split()) >= 78


@pytest.mark.exhaustive
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what.replace(" ", "-"))
def test_a_mistake_put_back_is_noticed(python, mistake):
    noticed, end = caught(mistake, mistake.test, python)
    assert noticed, end


@pytest.mark.exhaustive
def test_without_them_the_same_tests_pass(python):
    noticed, end = caught(None, " or ".join(sorted({mistake.test for mistake in MISTAKES})), python)
    assert not noticed, end
    assert "passed" in end


def test_the_list_of_mistakes_is_complete():
    assert {mistake.row for mistake in MISTAKES} == set(range(1, 23))
    assert len({mistake.what for mistake in MISTAKES}) == len(MISTAKES)
