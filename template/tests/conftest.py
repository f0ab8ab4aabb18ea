"""What the tests share: a small drawn data set, a project in a temporary folder, runs of a few seconds."""

import logging
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import main as main_script
from config import Config
from core.cli import run_script
from data.demo import draw_demo
from models.MyCNN import MyCNN
from Project import Project, Run


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: two classes, 12 pictures each to train with and 8 each in val/."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    draw_demo(folder, {"train": 12, "val": 8}, seed=1)
    return folder


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sends anything to Comet, downloads weights, or leaves a file outside its folder."""
    for name in ("COMET_API_KEY", "COMET_WORKSPACE", "COMET_PROJECT_NAME", "COMET_URL_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path / "no.comet.config"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.chdir(tmp_path)
    logging.getLogger().setLevel(logging.INFO)


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these trainings do: only tests that are marked `draws` get more than a dot."""
    if not request.node.get_closest_marker("draws"):
        monkeypatch.setattr(
            Figure, "savefig", lambda _, file, **__: Image.new("RGB", (1, 1)).save(file, "PNG")
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path / "project")


@pytest.fixture
def train(photos: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Runs main.py's function on the small data set: a narrow MyCNN, 32 px, two epochs, unless told otherwise."""
    monkeypatch.setitem(
        main_models(), "my_cnn", lambda n_classes, pretrained=False: MyCNN(n_classes, pretrained, 8)
    )

    def call(**options) -> Run:
        defaults = {
            "data_dir": photos,
            "model": "my_cnn",
            "image_size": 32,
            "batch_size": 8,
            "epochs": 2,
            "num_workers": 0,
            "trackers": ("none",),
            "device": "cpu",
        }
        return main_script.main(Config(**{**defaults, **options}), project)

    return call


def main_models() -> dict:
    """The registry of networks."""
    from models import MODELS

    return MODELS


@pytest.fixture
def exit_of(capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """Runs a script's function as its command line would: returns the exit code and what stood on stderr."""

    def call(main: Callable, parse: Callable) -> tuple[int, str]:
        capsys.readouterr()
        try:
            run_script(main, parse)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, capsys.readouterr().err.strip()

    return call


@pytest.fixture
def seeded_everything() -> None:
    """A known start for tests that draw."""
    random.seed(0)
    torch.manual_seed(0)
