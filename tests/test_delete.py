"""The table "What may go" in the template's README, carried out: each row alone, and all of them together.

Where one row is gone, the tests here import what is left, ask for help and train once. `python tests/test_delete.py`
runs all tests that are left, for each row or for those whose first file is named; that takes some minutes a row.
"""

import io
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from mistakes import TEMPLATE
from preloaded import HEAVY

SECTION = (TEMPLATE / "README.md").read_text(encoding="utf-8").partition("\n## What may go\n")[2].partition("\n## ")[0]
IMPORTS = """
import importlib
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def test_every_module_can_be_imported():
    for path in HERE.rglob("*.py"):
        name = ".".join(path.relative_to(HERE).with_suffix("").parts)
        if not name.startswith("tests."):
            importlib.import_module(name.removesuffix(".__init__"))
"""
QUICK = "every_module_can_be_imported or (help_needs_nothing_heavy and main) or final_figures_are_counts"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        delete: files and folders.
        changes: (file, words, words in their place); without the latter every line with the words is taken out.
    """

    delete: tuple[str, ...]
    changes: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        """The first of its files."""
        return self.delete[0]


def read_rows() -> list[Row]:
    """The rows of the table."""
    rows = []
    for line in SECTION.splitlines():
        if line.startswith("| `"):
            delete, take_out, _ = line.strip("|").split("|")
            changes = []
            for place in filter(str.strip, take_out.split(" · ")):
                file, _, words = place.partition(": ")
                found = re.findall(r"`([^`]+)`(?: → `([^`]+)`)?", words)
                changes += [(file.strip(" `"), old, new) for old, new in found]
            rows.append(Row(tuple(re.findall(r"`([^`]+)`", delete)), tuple(changes)))
    return rows


ROWS = read_rows()


def copy_without(rows: Sequence[Row], folder: Path) -> Path:
    """A copy of the template in which somebody has done what these rows say."""
    ignore = shutil.ignore_patterns("checkpoint", "dataset", ".cache", "__pycache__", ".*_cache")
    copy = Path(shutil.copytree(TEMPLATE, folder, ignore=ignore))
    for name in (name for row in rows for name in row.delete):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, old, new in (change for row in rows for change in row.changes):
        if any(name in row.delete for row in rows):
            continue
        text = (copy / name).read_text(encoding="utf-8")
        assert old in text, f"{name} holds no {old!r}"
        lines = text.splitlines(keepends=True)
        text = text.replace(old, new) if new else "".join(line for line in lines if old not in line)
        (copy / name).write_text(text, encoding="utf-8")
    return copy


def run(copy: Path, *words: str) -> str:
    """Runs Python in a copy; returns what it printed, and fails with the end of it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COMET_", "TORCH_HOME"))}
    env["OMP_NUM_THREADS"] = "1"
    done = subprocess.run([sys.executable, *words], cwd=copy, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def tidy(copy: Path) -> None:
    """Closes gaps, and fails where the linter finds a name that is unknown or not used any more."""
    run(copy, "-m", "ruff", "format", "--quiet", ".")
    run(copy, "-m", "ruff", "check", "--quiet", ".")


def passes(rows: Sequence[Row]) -> Counter[str]:
    """Whether a copy without these rows is tidy, passes its own tests and trains as one types it.

    Returns:
        For each Python file that is left, tests aside, its number of lines.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_without(rows, Path(folder) / "copy")
        tidy(copy)
        left = [path for path in copy.rglob("*.py") if "tests" not in path.parts]
        counts = Counter({str(path.relative_to(copy)): len(path.read_text("utf-8").splitlines()) for path in left})
        files = sorted(f"tests/{path.name}" for path in copy.glob("tests/test_*.py"))
        words = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        with ThreadPoolExecutor(2) as pool:  # two processes of one thread each are faster than the other way round
            list(pool.map(lambda half: run(copy, *words, *half), (files[::2], files[1::2])))
        options = ["--model", "my_cnn", "--image-size", "32", "--epochs", "1", "--trackers", "none"]
        run(copy, "main.py", *options, "--run-name", "a")
        assert (copy / "checkpoint" / "a" / "report.html").is_file()
    return counts


def passes_quickly(row: Row) -> None:
    """Whether a copy without this row is tidy, can be imported, offers help and trains.

    The tests run in this process: it was forked from one that has imported what takes long to import.
    """
    import torch

    with tempfile.TemporaryDirectory() as folder:
        copy = copy_without([row], Path(folder) / "copy")
        tidy(copy)
        (copy / "tests" / "test_imports.py").write_text(IMPORTS)
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        torch.set_num_threads(1)  # two of these run at a time
        printed = io.StringIO()
        with redirect_stdout(printed):
            code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", QUICK, "tests"])
        os.chdir("/")
        assert code == 0, printed.getvalue()[-3000:]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[Row, Future]]:
    """What becomes of a copy without each row, two at a time in the background."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*HEAVY])
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as pool:
        yield {row: pool.submit(passes_quickly, row) for row in ROWS}
        pool.shutdown(cancel_futures=True)


def test_the_table_is_read():
    assert len(ROWS) == sum(line.startswith("| ") for line in SECTION.splitlines()) - 1 >= 12  # without its head


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_may_go_can_go_alone(outcomes, row):
    outcomes[row].result()


def test_all_that_may_go_can_go_together_and_the_rest_trains():
    left = passes(ROWS)
    said = re.search(r"about ([\d,]+) lines of Python in (\d+) files", SECTION.replace("\n", " "))
    lines, files = (int(number.replace(",", "")) for number in said.groups())
    print(f"the smallest template that trains: {left.total():,} lines in {len(left)} files")
    assert (left.total(), len(left)) == (pytest.approx(lines, rel=0.05), pytest.approx(files, rel=0.05))


if __name__ == "__main__":
    chosen = [row for row in ROWS if not sys.argv[1:] or str(row) in sys.argv[1:]]
    for row in chosen:
        print(f"without {row} …", flush=True)
        passes([row])
    print(f"the tests that are left pass without each of {len(chosen)}")
