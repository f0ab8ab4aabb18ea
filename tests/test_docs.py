"""The documents: their commands run, their examples work, their tables name what exists.

Commands run in a shell, in the order of the documents. `REPLACED` makes trainings small; `NOT_RUN` lists the lines that
are not run, with the reason. The placeholders (RUN, DIR, photo.jpg …) are real files and folders with these names.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from mistakes import TEMPLATE
from preloaded import Preloaded
from test_template import copy_of_template

ROOT = TEMPLATE.parent
COPIED = (
    "README.md",
    "AGENTS.md",
    "docs/data.md",
    "docs/training.md",
    "docs/results.md",
    "docs/deployment.md",
)
COPIED += ("docs/several-machines.md", "docs/optional.md", "docs/extending.md")
PATHS = [ROOT / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md", "docs/BENCHMARKS.md")]
PATHS += [TEMPLATE / name for name in COPIED]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PATHS}
ALL = "\n".join(TEXTS.values())
EXAMPLES = TEXTS["template/docs/extending.md"]
EXECUTED = {  # documents whose blocks are run one after the other
    name: text for name, text in TEXTS.items() if name == "README.md" or name.startswith("template/")
}
del EXECUTED["template/docs/extending.md"]  # its own test

SCRIPTS = ("main.py", "evaluate.py", "predict.py", "export.py", "compare.py", "-m data.check")
OTHER_PROGRAMS = {  # their options
    "torchrun": {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"},
    "SBATCH": {"--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task"},
    "tensorboard": {"--logdir"},
    "uv": {"--no-project", "--with-requirements", "--torch-backend"},
    "ruff": {"--check", "--fix"},
}
OPTION = r"--[a-z][a-z0-9-]*"

SMALL = {"model": "my_cnn", "image-size": "32", "epochs": "1", "num-workers": "0"}
OPTIONS = " ".join(f"--{name} {value}" for name, value in SMALL.items()) + " --trackers none"
SETTINGS = " ".join(f"{name}={value}" for name, value in SMALL.items())
REPLACED = {  # a regular expression that matches in the documents, and what is run instead
    r"\bmain\.py(?! --resume| --help)": f"main.py {OPTIONS}",
    r"--nproc-per-node=4": "--nproc-per-node=2 --master-port=29517",
    r"--epochs 40": "--epochs 3",
    r"compare\.py": f'compare.py --seeds 2 --common "{SETTINGS}"',
    r'--common "epochs=10"': f'--common "{SETTINGS}"',
    r"--folds 5": "--folds 2",
    r"URL-OF-THIS-REPOSITORY": "~/published",
}
NOT_RUN = {
    "python3 -m venv .venv && . .venv/bin/activate && pip install -r template/requirements.txt && python "
    "template/main.py": "CI runs this line in a new environment",
    "python3 -m venv .venv && . .venv/bin/activate && pip install -r template/requirements-dev.txt && python -m "
    "pytest template/tests && python -m pytest -n 2 tests": "CI runs this line, and with it this test",
    "python3 -m venv .venv && . .venv/bin/activate": "CI makes an environment in the root",
    "pip install -r template/requirements.txt": "CI installs this file: 5 GB",
    "pip install -r requirements.txt": "the same file",
    "pip install -r requirements-dev.txt": "CI installs this file",
    "pip install copier": "it is in requirements-dev.txt",
    "pytest": "CI runs the template's tests",
    "uv run --no-project --with-requirements requirements.txt main.py": "uv would install the 5 GB again",
    "uv pip install --torch-backend=cpu -r requirements.txt": "it needs torch's own package index",
}


@dataclass(frozen=True)
class Block:
    """A code block of a document, with the paragraph or comment before it."""

    language: str
    code: str
    before: str


def blocks(text: str) -> list[Block]:
    found = []
    before = ""
    for part in re.split(r"(^```\w*\n.*?^```$)", text, flags=re.DOTALL | re.MULTILINE):
        if part.startswith("```"):
            language, _, code = part[3:-3].partition("\n")
            found.append(Block(language, code, before.strip().rpartition("\n\n")[2]))
        before = part
    return found


def commands(block: Block) -> list[str]:
    """Return the lines of a block without comments and without those that are not run."""
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in block.code.splitlines()]
    return [line for line in lines if line and line not in NOT_RUN]


@dataclass
class Shell:
    """A shell in a home folder that holds everything the documents take for granted.

    Attributes:
        home: `~`.
        python: starts Python quickly.
        cwd: folder of the next command.
        done: commands that are not repeated.
    """

    home: Path
    python: Preloaded
    cwd: Path
    done: set[str] = field(default_factory=set)

    def run(self, command: str, stdin: str = "", cwd: Path | None = None) -> str:
        """Run a command and return its output; without `cwd`, follow its changes of the folder.

        Raises:
            AssertionError: it failed.
        """
        for old, new in REPLACED.items():
            command = re.sub(old, new, command)
        env = {name: value for name, value in os.environ.items() if not name.startswith("COMET_")}
        env["PATH"] = f"{self.python.bin}:{Path(sys.executable).parent}:{env['PATH']}"
        env |= {"HOME": str(self.home), "TORCH_HOME": str(self.home / "torch"), "OMP_NUM_THREADS": "1"}
        env |= {"GIT_CONFIG_GLOBAL": os.devnull, "UNDRAWN": "1"}
        env |= {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        last_cwd = self.home / "last_cwd"
        done = subprocess.run(
            ["bash", "-e", "-c", f"trap 'pwd > {last_cwd}' EXIT\n{command}"],
            cwd=cwd or self.cwd,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        if cwd is None:
            self.cwd = Path(last_cwd.read_text().strip())
        return done.stdout

    def run_block(self, block: Block) -> None:
        """Run a block; commands of the template only where they have not run before."""
        if "<!-- test:" in block.before:  # another test runs it
            (name,) = re.findall(r"<!-- test: (\w+) -->", block.before)
            assert any(
                f"<!-- test: {name} -->" in file.read_text(encoding="utf-8")
                for file in (ROOT / "tests").rglob("*.py")
            )
        elif block.language == "python":
            self.run("python -", block.code)
        # several machines
        elif block.language == "sh" and ("--nnodes" in block.code or block.code.startswith("#!")):
            subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)
        elif block.language == "sh":
            for command in commands(block):
                if command not in self.done:
                    self.run(command)
                if command.startswith(("python ", "torchrun ", "cp ", "ruff ")):
                    self.done.add(command)


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """Yield a shell with a copy of the template: a demo in its cache, a run named RUN, images for placeholders."""
    with tempfile.TemporaryDirectory(prefix="docs") as name, Preloaded() as python:
        home = Path(name) / "home"
        home.mkdir()
        project = copy_of_template(home / "template")
        shell = Shell(home, python, home)
        draw = "from pathlib import Path; from data.demo import FOLDER, draw_demo; n = {'train': 12, 'val': 20}\n"
        draw += "draw_demo(Path('.cache') / FOLDER, n); draw_demo(Path('DIR'), n, seed=1)"
        shell.run("python -", draw, project)
        shutil.copy(project / "DIR" / "val" / "hero" / "000.jpg", project / "photo.jpg")
        for folder in ("folder", "photos", "more_photos"):
            shutil.copytree(project / "DIR" / "val" / "helmet", project / folder)
        shutil.copytree(project / "DIR" / "val", project / "elsewhere")
        for folder in ("photographs", "flowers"):
            shutil.copytree(project / "DIR", home / folder)
        shell.run("python main.py --run-name RUN", cwd=project)
        yield shell


def test_commands_of_the_documents_run(shell):
    published = shell.home / "published"
    copy_of_template(published / "template")
    shutil.copy(ROOT / "copier.yml", published)
    shell.run("git init -q && git add -A && git commit -qm first && git tag v1.0.0", cwd=published)

    project = shell.home / "my-project"
    for name, text in EXECUTED.items():
        for block in blocks(text):
            if name != "README.md":
                shell.cwd = project
            elif "pip install copier" in block.code:  # in a folder without my-project
                shell.cwd = shell.home / "copied"
                shell.cwd.mkdir()
            shell.run_block(block)
            if "mkdir dataset" in block.code:  # as the comment there says
                shutil.copytree(project / "DIR", project / "dataset", dirs_exist_ok=True)
        for command in re.findall(r"`(python -c .+?)`", text, re.DOTALL):
            shell.run(re.sub(r"\n *", " ", command), cwd=project)


def test_lines_that_are_not_run_or_changed_are_in_the_documents():
    lines = {
        line.strip()
        for text in EXECUTED.values()
        for block in blocks(text)
        for line in block.code.splitlines()
    }
    assert set(NOT_RUN) <= lines
    for old in REPLACED:
        assert any(re.search(old, line) for line in lines), old


@pytest.mark.parametrize("script", SCRIPTS[:4])
def test_commands_at_the_top_of_a_script_run(shell, script):
    project = shell.home / "template"
    docstring = (TEMPLATE / script).read_text(encoding="utf-8").split('"""')[1]
    for line in re.findall(r"^python .*$", docstring, re.MULTILINE):
        command = line.split("  ")[0]
        if command not in shell.done:
            shell.run(command, cwd=project)
            shell.done.add(command)


def test_one_command_draws_the_figures(shell):
    folder = shell.home / "drawn"
    shell.run(f"env -u UNDRAWN python {ROOT / 'docs' / 'draw.py'} --to {folder} {OPTIONS}")
    drawn = {file.name for file in (folder / "docs").iterdir()}
    figures = {file.name for file in (ROOT / "docs").glob("*.png")}
    shown = set(re.findall(r"\((?:docs/)?(\w+\.png)\)", TEXTS["README.md"] + TEXTS["docs/BENCHMARKS.md"]))
    assert shown == figures
    assert drawn | {"report.png"} == figures - {"peers.png"}  # the report needs a browser
    for file in (folder / "docs").iterdir():
        assert file.stat().st_size > 5000
    diagrams = sorted((folder / "template" / "docs").iterdir())
    assert [file.name for file in diagrams] == sorted(file.name for file in (TEMPLATE / "docs").glob("*.svg"))
    for file in diagrams:
        assert f"]({file.name})" in ALL
        assert file.read_text() == (TEMPLATE / "docs" / file.name).read_text(), (
            "run python docs/draw.py --diagrams"
        )


def file_of(block: Block) -> str | None:
    """Return the file that an example is, from the comment in its first line."""
    named = re.match(r"# ([\w/]+\.py)\n", block.code)
    return named and named[1]


def apply_diff(project: Path, block: Block) -> int:
    """Add the lines with a plus to the file named before the block; return the number of lines that are no imports.

    Imports go to the top. Any other line goes after the line above it, which is in the file once.
    """
    (name,) = re.findall(r"`([\w/]+\.py)`", block.before.splitlines()[-1])
    text = (project / name).read_text(encoding="utf-8")
    added = 0
    context = ""
    for line in filter(None, block.code.splitlines()):
        if line.startswith("+from "):
            text = re.sub(r"^(?=from |import )", f"{line[1:]}\n", text, count=1, flags=re.MULTILINE)
            continue
        if line.startswith("+"):
            assert text.count(f"{context}\n") == 1, f"{name}: {context}"
            text = text.replace(f"{context}\n", f"{context}\n{line[1:]}\n")
            added += 1
        context = line[1:]
    (project / name).write_text(text, encoding="utf-8")
    return added


ROTATED = """
import numpy as np
from PIL import Image
from data.transformation import get_transforms

image = np.zeros((32, 32, 3), "u1")
image[:8, :8] = 200
transform, _ = get_transforms(32, "from_above")
print(len({transform(Image.fromarray(image))[0].argmax().item() for _ in range(60)}))  # corners that get bright
"""


def save_arrays(path: Path) -> None:
    """Save images of two classes, dark and bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    arrays = {}
    for split in ("train", "val", "test"):
        noise = rng.integers(0, 128, (40, 32, 32, 3))
        arrays[f"{split}_images"] = (noise + 127 * labels[:, None, None, None]).astype("u1")
        arrays[f"{split}_labels"] = labels[:, None]
    np.savez(path, **arrays)


def read_log(run: Path) -> list[dict[str, str]]:
    with open(run / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def extended(shell) -> Path:
    """Return a copy of the template with all examples of extending.md."""
    project = shell.home / "extended"
    shutil.copytree(shell.home / "template", project)
    files, added = [], 0
    for block in blocks(EXAMPLES):
        if name := file_of(block):
            assert not (project / name).exists(), name
            (project / name).write_text(block.code, encoding="utf-8")
            files.append(name)
        elif block.language == "diff":
            added += apply_diff(project, block)
    assert (len(files), added) == (10, 15)
    shell.run("ruff check --quiet --fix --select I .", cwd=project)
    save_arrays(project / "arrays.npz")
    return project


def test_the_examples_pass_linter_and_type_checker(shell, extended):
    shell.run("ruff check . && ruff format --check . && mypy .", cwd=extended)
    wrong = extended / "wrong.py"
    wrong.write_text("from models import get_model\n\nget_model(3, 'resnet18')\n")
    # mypy does check
    with pytest.raises(AssertionError, match=r"wrong.py:3: error: Argument 1 to \"get_model\""):
        shell.run("mypy .", cwd=extended)
    wrong.unlink()


def test_the_examples_work_together(shell, extended):
    words = []
    for block in blocks(EXAMPLES):
        if block.language == "sh" and "resnet18_stage3" not in block.code:
            words += [command.removeprefix("python main.py ") for command in commands(block)]
    assert len(words) == 7
    limit = extended / "callbacks" / "__init__.py"
    original = limit.read_text(encoding="utf-8")
    limit.write_text(original.replace("minutes=60", "minutes=0"), encoding="utf-8")
    shell.run(f"python main.py {' '.join(words)} --epochs 5 --run-name all", cwd=extended)
    limit.write_text(original, encoding="utf-8")

    run = extended / "checkpoint" / "all"
    options = json.loads((run / "config.json").read_text())["options"]
    expected = {"dataset": "arrays", "model": "convmixer", "loss": "poly", "augmentation": "from_above"}
    expected |= {"optimizer": "adamax", "lr_schedule": "polynomial"}
    assert options | expected == options
    assert json.loads((run / "classes.json").read_text()) == ["class 0", "class 1"]
    (epoch,) = read_log(run)  # the time was up after the first one
    assert 0 <= float(epoch["val_worst_recall"]) <= float(epoch["val_f1"])
    assert -1 <= float(epoch["val_mcc"]) <= 1
    *epochs, end = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    assert epochs[0]["val_loss"] == pytest.approx(float(epoch["val_loss"]))
    assert end["final"]["test_acc"] == json.loads((run / "metrics.json").read_text())["test_acc"]
    assert shell.run("python -", ROTATED, extended).strip() == "4"

    words = (
        "--dataset arrays --data-dir arrays.npz --model convmixer --weights checkpoint/all/best.pt --epochs 3"
    )
    shell.run(f"python main.py {words} --run-name frozen --trackers none", cwd=extended)
    run = extended / "checkpoint" / "frozen"  # validated on cached features
    metrics = json.loads((run / "metrics.json").read_text())
    best = read_log(run)[metrics["best_epoch"] - 1]
    assert float(best["val_loss"]) == pytest.approx(metrics["val_loss"], abs=2e-3)
    assert float(best["val_f1"]) == pytest.approx(metrics["val_f1"])


def test_the_pretrained_example_is_frozen(shell, extended):
    weights = shell.home / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    words = "--model resnet18_stage3 --dataset arrays --data-dir arrays.npz --epochs 2 --trackers none"
    shell.run(f"python main.py {words} --run-name stage3", cwd=extended)
    shutil.rmtree(weights.parent)
    run = extended / "checkpoint" / "stage3"
    options = json.loads((run / "config.json").read_text())["options"]
    assert (options["weights"], options["freeze"], options["cached_views"]) == ("imagenet", "all", 2)
    assert options["lr"] == pytest.approx(0.003)
    trained = torch.load(run / "best.pt", weights_only=True)
    assert trained["head.weight"].shape == (2, 256)


@pytest.fixture(scope="module")
def helps(shell) -> dict[str, set[str]]:
    """Return the options of each script, from its `--help`."""
    text = {name: shell.run(f"python {name} --help", cwd=shell.home / "template") for name in SCRIPTS}
    listed = r"^ +(?:-h, )?(--[a-z].*?)(?:  |$)"  # "--strict, --no-strict", "--lr FLOAT"
    lines = {name: re.findall(listed, found, re.MULTILINE) for name, found in text.items()}
    return {name: set(re.findall(OPTION, " ".join(found))) for name, found in lines.items()}


def test_the_table_of_options_is_that_of_the_help(helps):
    section = TEXTS["template/docs/training.md"].partition("\n## Options\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    named = re.findall(OPTION, "\n".join(table))
    assert len(named) == len(set(named))
    assert set(named) == {name for name in helps["main.py"] if not name.startswith("--no-")} - {"--help"}


def test_options_in_the_documents_belong_to_the_script_they_are_given_to(shell, helps):
    scripts = dict(helps)
    for script in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")]:
        found = shell.run(f"python {script} --help")
        scripts[f"{script.parent.name}/{script.name}"] = set(re.findall(OPTION, found))
    known = set().union(*scripts.values(), *OTHER_PROGRAMS.values())
    for text in TEXTS.values():
        assert set(re.findall(rf"(?<![\w-]){OPTION}", re.sub(r"<!--.*?-->|\|?[ :-]+\|", "", text))) <= known
        for name, options in scripts.items():
            for line in re.findall(rf"(?<=[` ]){re.escape(name)} ([^`#\n]*)", re.sub(r"\n +", " ", text)):
                assert set(re.findall(rf"(?<!\S){OPTION}", line)) <= options, f"{name} {line}"


def test_options_of_other_programs_are_all_used():
    for program, options in OTHER_PROGRAMS.items():
        assert program in ALL
        for option in options:
            assert option in ALL, option


REGISTRIES = """
import json
from callbacks import TRACKERS
from data import DATASETS
from data.transformation import AUGMENTATIONS, RESIZES
from losses import LOSSES
from metrics import METRICS
from models import MODELS
from training.optimizers import OPTIMIZERS, SCHEDULES

print(json.dumps({name: list(found) for name, found in globals().items() if name.isupper()}))
"""


def test_documents_name_what_the_registries_hold(shell):
    project = shell.home / "template"
    registries = json.loads(shell.run("python -", REGISTRIES, project))
    data, training = TEXTS["template/docs/data.md"], TEXTS["template/docs/training.md"]

    def first_column(header: str) -> set[str]:
        table = data.partition(header)[2].partition("\n\n")[0]
        return set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))))

    def bullet(title: str) -> str:
        (text,) = re.findall(rf"^- \*\*{title}\.\*\* (.*?)\n(?:- |\n)", training, re.DOTALL | re.MULTILINE)
        return text

    assert first_column("| `--dataset` |") == set(registries["DATASETS"])
    assert first_column("| `--resize` |") == set(registries["RESIZES"])
    (named,) = re.findall(r"`--trackers ([a-z ]+)` adds", training)
    assert named.split() == registries["TRACKERS"]
    (named,) = re.findall(r"`--metrics ([a-z0-9 ]+)`", training)
    assert set(named.split()) <= set(registries["METRICS"])
    schedules = set(re.findall(r"`(?:--lr-schedule )?(\w+)`", bullet("Schedule")))
    assert schedules == set(registries["SCHEDULES"])
    assert set(re.findall(r"`(\w+)`", bullet("Optimizer"))) == set(registries["OPTIMIZERS"])
    assert set(re.findall(r"`(\w+)`", bullet("Loss"))) == set(registries["LOSSES"])
    assert set(registries["MODELS"]) - {"resnet18"} <= set(re.findall(r"`(\w+)`", bullet("Model")))
    named = re.search(r"`--augmentation`\s+takes (.*?)\.", data)[1]
    assert set(re.findall(r"`(\w+)`", named)) == set(registries["AUGMENTATIONS"])

    words = set(re.findall(r"\w+", shell.run("python main.py --help", cwd=project)))
    for name, keys in registries.items():  # f1_weighted and the like are not all listed
        missing = {key for key in keys if key not in words and not key.endswith("_weighted")}
        assert missing <= {"my_dataset"}, name
        assert f"`{name}`" in EXAMPLES, name


def test_files_and_links_in_the_documents_exist(shell):
    examples = {file_of(block) for block in blocks(EXAMPLES)}
    made_later = ("checkpoint/", "dataset/", ".cache/", "comet/", "tensorboard/")
    for document, text in TEXTS.items():
        for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
            assert ((ROOT / document).parent / link).exists(), f"{document}: {link}"
        base = TEMPLATE if document.startswith("template/") else ROOT
        prose = "".join(re.split(r"^```.*?^```$", text, flags=re.DOTALL | re.MULTILINE))
        for name in re.findall(r"`([\w.-]+/[\w/.]*|\w+\.(?:py|ipynb|toml|md))`", prose):
            if (
                name.startswith(made_later) or "NAME" in name or name in ("__init__.py", "train.py")
            ):  # the latter is timm's
                continue
            assert name in examples or (base / name).exists() or (TEMPLATE / name).exists(), (
                f"{document}: {name}"
            )
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", EXAMPLES, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", EXAMPLES)) <= anchors


def test_the_table_of_the_run_folder_is_complete(shell):
    project = shell.home / "template"
    shell.run("python evaluate.py checkpoint/RUN", cwd=project)
    run = project / "checkpoint" / "RUN"
    table = (
        TEXTS["template/docs/results.md"].partition("| in `checkpoint/<run-name>/` |")[2].partition("\n\n")[0]
    )
    rows = [row.split(" | ")[0] for row in table.splitlines()]
    named = set(re.findall(r"`([\w-]+\.\w+)`", "\n".join(rows)))
    assert len(named) > 15
    # several classes per image, export.py
    optional = {"thresholds.json", "model.onnx", "model.pt2", "labels.json"}
    for name in named - optional:
        assert (run / name).exists(), name
    left = {file.name for file in run.iterdir() if file.is_file() and not file.name.startswith("evaluate-")}
    assert left <= named
