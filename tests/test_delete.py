"""The table in template/docs/optional.md, carried out: each part is deleted alone, and all of them together.

What is left has to be free of lint, import every module, train, evaluate and predict.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mistakes import TEMPLATE

PAGE = TEMPLATE / "docs" / "optional.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("\n## Optional parts\n")[2].partition("\n## ")[0]
IMPORT_ALL = """
import importlib
from pathlib import Path

for path in sorted(Path().rglob("*.py")):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    if not name.startswith("tests."):
        importlib.import_module(name)
"""


@dataclass(frozen=True)
class Part:
    """A row of the table.

    Attributes:
        files: files and folders.
        lines: (file, beginning of a statement or of an entry in a list or dict).
        replaced: (file, text, text in its place).
        options: fields of Config.
        packages: lines of requirements.txt.
    """

    files: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    replaced: tuple[tuple[str, ...], ...]
    options: tuple[str, ...]
    packages: tuple[str, ...]

    def __str__(self) -> str:
        return self.files[0]


def quoted(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def read_parts() -> list[Part]:
    parts = []
    for row in SECTION.splitlines():
        if not row.startswith("| `"):
            continue
        files, lines, options, packages, _ = row.strip("|").split("|")
        places = [quoted(place) for place in lines.split(" · ") if quoted(place)]
        names = tuple(name.removeprefix("--").replace("-", "_") for name in quoted(options))
        deleted = tuple(place for place in places if len(place) == 2)
        replaced = tuple(place for place in places if len(place) == 3)
        parts.append(Part(quoted(files), deleted, replaced, names, quoted(packages)))
    return parts


PARTS = read_parts()


def spans(source: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of all statements, and of all entries of lists, tuples and dicts, statements first."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))

    def span(first: ast.AST, last: ast.AST) -> tuple[int, int]:
        return starts[first.lineno - 1] + first.col_offset, starts[last.end_lineno - 1] + last.end_col_offset

    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.stmt):
            yield span(node, node)
    for node in nodes:
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                start, end = span(key or value, value)
                yield (start if key else start - len("**")), end
        if isinstance(node, ast.List | ast.Tuple):
            yield from (span(entry, entry) for entry in node.elts)


def without(source: str, beginning: str) -> str:
    """Return Python source without the one statement or entry that begins so."""
    text = source.encode()
    found = {
        start: end
        for start, end in reversed(list(spans(source)))
        if text[start:].startswith(beginning.encode())
    }
    assert len(found) == 1, f"{len(found)} places begin with {beginning!r}"
    ((start, end),) = found.items()
    rest = text[end:].lstrip(b" ").removeprefix(b",")
    return (text[:start] + rest).decode()


def without_imports(source: str, deleted: set[str]) -> str:
    """Return Python source without the imports of modules that are deleted."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            if names & deleted or node.module.split(".")[0] in deleted:
                lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "".join(lines)


def without_option(source: str, option: str) -> str:
    """Return config.py without a field of Config and its help."""
    (config,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == "Config")
    lines = source.splitlines(keepends=True)
    at = next(
        i for i, node in enumerate(config.body) if getattr(getattr(node, "target", None), "id", "") == option
    )
    field, text = config.body[at : at + 2]
    lines[field.lineno - 1 : text.end_lineno] = [""] * (text.end_lineno - field.lineno + 1)
    return "".join(lines)


def copy_without(parts: Sequence[Part], folder: Path) -> Path:
    """Return a copy of the template after somebody has done what the page says about these parts."""
    ignore = shutil.ignore_patterns("checkpoint", "dataset", ".cache", "__pycache__", ".*_cache", ".venv")
    copy = Path(shutil.copytree(TEMPLATE, folder, ignore=ignore))
    for name in (name for part in parts for name in part.files):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    deleted = {".".join(Path(name).with_suffix("").parts) for part in parts for name in part.files}
    changes = [(name, without, line) for part in parts for name, line in part.lines]
    changes += [("config.py", without_option, option) for part in parts for option in part.options]
    changes += [(str(path.relative_to(copy)), without_imports, deleted) for path in copy.rglob("*.py")]
    for name, old, new in (place for part in parts for place in part.replaced):
        text = (copy / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} holds {text.count(old)} times {old!r}"
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    for name, change, what in changes:
        if (copy / name).is_file():
            source = (copy / name).read_text(encoding="utf-8")
            (copy / name).write_text(change(source, what), encoding="utf-8")
    requirements = copy / "requirements.txt"
    packages = [name for part in parts for name in part.packages]
    kept = [
        line for line in requirements.read_text().splitlines() if re.split(r"[>=<]", line)[0] not in packages
    ]
    requirements.write_text("\n".join(kept) + "\n")
    run(copy, sys.executable, "-m", "ruff", "check", "--quiet", "--fix", ".")
    run(copy, sys.executable, "-m", "ruff", "format", "--quiet", ".")
    return copy


def run(copy: Path, *words: str | Path) -> None:
    """Run a command in a copy; fail with the end of what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COMET_", "TORCH_HOME"))}
    env |= {"OMP_NUM_THREADS": "1", "UNDRAWN": "1"}
    done = subprocess.run([*map(str, words)], cwd=copy, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def photos(python, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    code = f"from pathlib import Path; from data.demo import draw_demo; draw_demo(Path({str(folder)!r}), {IMAGES})"
    run(TEMPLATE, python, "-c", code)
    return folder


IMAGES = {"train": 12, "val": 8}


def check_that_it_works(python: Path, copy: Path, photos: Path) -> None:
    """Import every module of a copy, train, evaluate and predict."""
    run(copy, python, "-c", IMPORT_ALL)
    options = ["--data-dir", photos, "--model", "my_cnn", "--image-size", "32", "--epochs", "1"]
    run(copy, python, "main.py", *options, "--num-workers", "0", "--run-name", "a")
    run(copy, python, "evaluate.py", "checkpoint/a", "--num-workers", "0")
    run(copy, python, "predict.py", "checkpoint/a", photos / "val")


def test_every_row_of_the_table_is_read():
    # without its head
    assert len(PARTS) == sum(line.startswith("| ") for line in SECTION.splitlines()) - 1 >= 12


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", PARTS, ids=str)
def test_each_part_can_be_deleted_alone(part, python, photos, tmp_path):
    check_that_it_works(python, copy_without([part], tmp_path / "copy"), photos)


def test_all_parts_can_be_deleted_together_and_the_tests_that_are_left_pass(python, photos, tmp_path):
    copy = copy_without(PARTS, tmp_path / "copy")
    check_that_it_works(python, copy, photos)
    run(copy, sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
    left = [path for path in copy.rglob("*.py") if "tests" not in path.relative_to(copy).parts]
    n_lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in left)
    stated = re.search(r"about ([\d,]+) lines of Python in (\d+) files", SECTION.replace("\n", " "))
    lines, files = (int(number.replace(",", "")) for number in stated.groups())
    assert (n_lines, len(left)) == (pytest.approx(lines, rel=0.05), pytest.approx(files, rel=0.05))
