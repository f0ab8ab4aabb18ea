"""The notebook runs from top to bottom in a copy of the project, and is committed without outputs."""

import shutil
from pathlib import Path

import pytest

from Project import project as project_of_template

HERE = project_of_template.base_dir


def test_the_notebook_runs(photos, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    ignore = shutil.ignore_patterns("tests", "checkpoint", "dataset", ".*", "__pycache__")
    folder = Path(shutil.copytree(HERE, tmp_path / "copy", ignore=ignore))
    shutil.copytree(photos, folder / "dataset")
    notebook = nbformat.read(folder / "playground.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) >= 6  # the data, augmented, plain, views, one's own augmenter, curves
    assert not list(folder.glob("*.png"))  # in a notebook pictures are shown, not written


def test_the_notebook_is_kept_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(HERE / "playground.ipynb", as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")
