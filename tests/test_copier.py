"""Two ways in, the same files; and a project that has gone its own way takes the template's improvements."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mistakes import TEMPLATE
from test_template import copy_of_template

pytest.importorskip("copier", reason="pip install copier")
ROOT = TEMPLATE.parent
ANSWERS = ".copier-answers.yml"
NAME = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b.c",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b.c",
}


def sh(*words: str | Path, cwd: Path) -> str:
    """Runs a command; fails with what it printed."""
    env = {**os.environ, **NAME, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copier(*words: str | Path, cwd: Path) -> None:
    """Runs copier, without questions."""
    sh(sys.executable, "-m", "copier", *words, "--defaults", "--quiet", cwd=cwd)


def commit(folder: Path, message: str, tag: str | None = None) -> None:
    """Commits all that has changed."""
    sh("git", "add", "-A", cwd=folder)
    sh("git", "commit", "-q", "--no-verify", "-m", message, cwd=folder)
    if tag:
        sh("git", "tag", tag, cwd=folder)


@pytest.fixture
def published(tmp_path) -> Path:
    """The template as a repository of its own with a version."""
    folder = tmp_path / "published"
    folder.mkdir()
    shutil.copy(ROOT / "copier.yml", folder)
    copy_of_template(folder / "template")
    sh("git", "init", "-q", "-b", "main", cwd=folder)
    commit(folder, "first", "v1.0.0")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, but for what tells where it came from."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {
        name: content
        for name, content in found.items()
        if ANSWERS not in name and not name.startswith(".git/")
    }


def change(file: Path, old: str, new: str) -> None:
    """Changes a text that stands in a file once."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_both_ways_give_the_same_files(published, tmp_path):
    copier("copy", published, tmp_path / "by copier", cwd=tmp_path)
    shutil.copytree(published / "template", tmp_path / "by hand")
    assert files(tmp_path / "by copier") == files(tmp_path / "by hand")
    assert "v1.0.0" in (tmp_path / "by copier" / ANSWERS).read_text()


@pytest.mark.parametrize("way", ["copier", "hand"])
def test_a_project_of_ones_own_is_updated(published, tmp_path, way):
    project = tmp_path / "project"
    if way == "copier":
        copier("copy", published, project, cwd=tmp_path)
    else:  # as the README says it
        shutil.copytree(published / "template", project)
        (line,) = re.findall(r"^printf .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
        line = re.sub(r"_src_path: \S+?\\n", lambda _: rf"_src_path: {published}\n", line)
        sh("sh", "-c", line, cwd=project)
    sh("git", "init", "-q", "-b", "main", cwd=project)
    commit(project, "mine")
    change(project / "config.py", "epochs: PositiveInt = 20", "epochs: PositiveInt = 33")
    (project / "models" / "mine.py").write_text("A network of mine\n")
    change(project / "losses" / "__init__.py", "label_smoothing=0.1", "label_smoothing=0.2")
    commit(project, "edits of my own")

    change(
        published / "template" / "config.py", "batch_size: PositiveInt = 32", "batch_size: PositiveInt = 48"
    )
    change(published / "template" / "losses" / "__init__.py", "label_smoothing=0.1", "label_smoothing=0.3")
    (published / "template" / "new.py").write_text("new in the second version\n")
    commit(published, "second", "v2.0.0")
    copier("update", "--conflict", "inline", cwd=project)

    config = (project / "config.py").read_text(encoding="utf-8")
    assert "epochs: PositiveInt = 33" in config  # edits are kept
    assert "batch_size: PositiveInt = 48" in config  # the new version has arrived
    assert (project / "new.py").read_text() == "new in the second version\n"
    assert (project / "models" / "mine.py").exists()
    losses = (project / "losses" / "__init__.py").read_text(encoding="utf-8")
    assert "<<<<<<<" in losses  # both have changed this line
    assert "label_smoothing=0.2" in losses
    assert "label_smoothing=0.3" in losses
    assert "v2.0.0" in (project / ANSWERS).read_text()
