"""What the documents say is done: their commands run, their examples work, their tables name what there is.

Commands run as they stand, in a shell, one after the other; `INSTEAD` makes trainings small, and `LEFT_OUT` says which
lines are not run, and why. The placeholders (RUN, DIR, photo.jpg …) are real files and folders of these names.
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

from mistakes import TEMPLATE
from preloaded import Preloaded
from test_template import copy_of_template

ROOT = TEMPLATE.parent
DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "template/README.md")}
EXAMPLES = (TEMPLATE / "EXTEND.md").read_text(encoding="utf-8")
SCRIPTS = ("main.py", "evaluate.py", "predict.py", "export.py", "compare.py", "-m data.check")
OTHERS = {  # options of programs that are not ours
    "torchrun": {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"},
    "sbatch": {"--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task"},
    "tensorboard": {"--logdir"},
    "uv": {"--no-project", "--with-requirements"},
    "ruff": {"--check", "--fix"},
}
OPTION = r"--[a-z][a-z0-9-]*"

SMALL = {"model": "my_cnn", "image-size": "32", "epochs": "1", "num-workers": "0"}
OPTIONS = " ".join(f"--{name} {value}" for name, value in SMALL.items()) + " --trackers none"
SETTINGS = " ".join(f"{name}={value}" for name, value in SMALL.items())
INSTEAD = {  # what stands in the documents, as a regular expression, and what is run
    r"\bmain\.py(?! --resume| --help)": f"main.py {OPTIONS}",
    r"--nproc-per-node=4": "--nproc-per-node=2 --master-port=29517",
    r"--epochs 40": "--epochs 3",
    r"compare\.py": f'compare.py --seeds 2 --common "{SETTINGS}"',
    r'--common "epochs=10"': f'--common "{SETTINGS}"',
    r"--folds 5": "--folds 2",
    r"URL-OF-THIS-REPOSITORY": "~/published",
}
LEFT_OUT = {  # lines that are not run
    "python3 -m venv .venv && . .venv/bin/activate && pip install -r template/requirements.txt && python "
    "template/main.py": "CI runs this very line, with a fresh environment",
    "python3 -m venv .venv && . .venv/bin/activate && pip install -r template/requirements-dev.txt && python -m "
    "pytest template/tests && python -m pytest tests": "CI runs this very line, and so this test",
    "python3 -m venv .venv && . .venv/bin/activate": "CI makes an environment at the root",
    "pip install -r requirements.txt": "CI installs this file: 5 GB",
    "pip install -r requirements-dev.txt": "CI installs this file",
    "pip install copier": "it is in requirements-dev.txt",
    "pytest": "CI runs the template's tests",
    "uv run --no-project --with-requirements requirements.txt main.py": "uv installs the 5 GB once more",
}


@dataclass(frozen=True)
class Block:
    """A piece of code in a document, with the paragraph or comment before it."""

    language: str
    code: str
    before: str


def blocks(text: str) -> list[Block]:
    """All of them, in order."""
    found = []
    before = ""
    for part in re.split(r"(^```\w*\n.*?^```$)", text, flags=re.DOTALL | re.MULTILINE):
        if part.startswith("```"):
            language, _, code = part[3:-3].partition("\n")
            found.append(Block(language, code, before.strip().rpartition("\n\n")[2]))
        before = part
    return found


def commands(block: Block) -> list[str]:
    """Its lines, without those that are left out."""
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in block.code.splitlines()]
    return [line for line in lines if line and line not in LEFT_OUT]


@dataclass
class Desk:
    """A home with all that the documents take for granted, and a shell in it.

    Attributes:
        home: `~`.
        python: makes `python` quick.
        cwd: where the next command is typed.
        done: what was run already; it is not run again.
    """

    home: Path
    python: Preloaded
    cwd: Path
    done: set[str] = field(default_factory=set)

    def run(self, command: str, stdin: str = "", cwd: Path | None = None) -> str:
        """Types a command, fails with what it printed, and stays in the folder to which it has gone."""
        for old, new in INSTEAD.items():
            command = re.sub(old, new, command)
        env = {name: value for name, value in os.environ.items() if not name.startswith("COMET_")}
        env["PATH"] = f"{self.python.bin}:{Path(sys.executable).parent}:{env['PATH']}"
        env |= {"HOME": str(self.home), "TORCH_HOME": str(self.home / "torch"), "OMP_NUM_THREADS": "1"}
        env |= {"GIT_CONFIG_GLOBAL": os.devnull, "UNDRAWN": "1"}
        env |= {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        place = self.home / "place"
        done = subprocess.run(
            ["bash", "-e", "-c", f"trap 'pwd > {place}' EXIT\n{command}"],
            cwd=cwd or self.cwd,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        if cwd is None:
            self.cwd = Path(place.read_text().strip())
        return done.stdout


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """A copy of the template with a small demo in its cache, a run named RUN, and pictures under all names in use."""
    with tempfile.TemporaryDirectory(prefix="docs") as name, Preloaded() as python:
        home = Path(name) / "home"
        home.mkdir()
        project = copy_of_template(home / "template")
        desk = Desk(home, python, home)
        draw = "from pathlib import Path; from data.demo import draw_demo as d; n = {'train': 12, 'val': 20}\n"
        desk.run("python -", draw + "d(Path('.cache/demo-v2'), n); d(Path('DIR'), n, seed=1)", project)
        shutil.copy(project / "DIR" / "val" / "hero" / "000.jpg", project / "photo.jpg")
        for folder in ("folder", "photos", "more_photos"):
            shutil.copytree(project / "DIR" / "val" / "helmet", project / folder)
        shutil.copytree(project / "DIR" / "val", project / "elsewhere")
        for folder in ("pictures", "flowers"):
            shutil.copytree(project / "DIR", home / folder)
        desk.run("python main.py --run-name RUN", cwd=project)
        yield desk


def test_the_commands_of_the_documents_run(desk):
    published = desk.home / "published"
    copy_of_template(published / "template")
    shutil.copy(ROOT / "copier.yml", published)
    desk.run("git init -q && git add -A && git commit -qm first && git tag v1.0.0", cwd=published)

    project = desk.home / "my-project"
    for name, text in DOCUMENTS.items():
        for block in blocks(text):
            if name != "README.md":
                desk.cwd = project
            elif "pip install copier" in block.code:  # where there is no my-project yet
                desk.cwd = desk.home / "apart"
                desk.cwd.mkdir()
            run_block(desk, block)
            if project.is_dir() and not (project / "dataset" / "train").is_dir():  # as the comment there says it
                shutil.copytree(project / "DIR", project / "dataset", dirs_exist_ok=True)
        for command in re.findall(r"`(python -c .+?)`", text, re.DOTALL):
            desk.run(re.sub(r"\n *", " ", command), cwd=project)


def run_block(desk: Desk, block: Block) -> None:
    """Runs what has not been run yet."""
    if "<!-- test:" in block.before:  # a test of the template runs it
        (name,) = re.findall(r"<!-- test: (\w+) -->", block.before)
        assert any(f"<!-- test: {name} -->" in file.read_text() for file in (TEMPLATE / "tests").glob("*.py"))
    elif block.language == "python":
        desk.run("python -", block.code)
    elif block.language == "sh" and ("--nnodes" in block.code or block.code.startswith("#!")):  # needs more machines
        subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)
    elif block.language == "sh":
        for command in commands(block):
            if command not in desk.done:
                desk.run(command)
            if command.startswith(("python ", "torchrun ")):
                desk.done.add(command)


def test_what_is_left_out_or_changed_still_stands_in_the_documents():
    lines = {line.strip() for text in DOCUMENTS.values() for block in blocks(text) for line in block.code.splitlines()}
    assert set(LEFT_OUT) <= lines
    for old in INSTEAD:
        assert any(re.search(old, line) for line in lines), old


@pytest.mark.parametrize("script", SCRIPTS[:4])
def test_the_commands_at_the_top_of_a_script_run(desk, script):
    project = desk.home / "template"
    top = (TEMPLATE / script).read_text(encoding="utf-8").split('"""')[1]
    for line in re.findall(r"^python .*$", top, re.MULTILINE):
        command = line.split("  ")[0]
        if command not in desk.done:
            desk.run(command, cwd=project)
            desk.done.add(command)


def test_one_command_draws_the_pictures_again(desk):
    folder = desk.home / "drawn"
    desk.run(f"env -u UNDRAWN python {ROOT / 'docs' / 'draw.py'} --to {folder} {OPTIONS}")
    drawn = {file.name for file in folder.iterdir()}
    shown = set(re.findall(r"\(docs/(\w+\.png)\)", DOCUMENTS["README.md"]))
    assert drawn == shown - {"peers.png"} == {file.name for file in (ROOT / "docs").glob("*.png")} - {"peers.png"}
    for file in folder.iterdir():
        assert file.stat().st_size > 5000


def new_file(block: Block) -> str | None:
    """Which file an example is, as the sentence before it says."""
    named = re.search(r"The file is `(.+?)`", block.before)
    return named and named[1] if block.language == "python" else None


def add_lines(project: Path, block: Block) -> int:
    """Puts each line with a plus into the file that is named before it, beside its neighbours, which stand there once.

    Returns:
        How many.
    """
    (name,) = re.findall(r"`([\w/]+\.py)`", block.before.splitlines()[-1])
    text = (project / name).read_text(encoding="utf-8")
    hunks = [hunk.splitlines() for hunk in block.code.strip("\n").split("\n\n")]
    for hunk in hunks:
        old = "\n".join(line[1:] for line in hunk if not line.startswith("+"))
        assert text.count(f"{old}\n") == 1, old
        text = text.replace(f"{old}\n", "".join(f"{line[1:]}\n" for line in hunk))
    (project / name).write_text(text, encoding="utf-8")
    return sum(line.startswith("+") and not line.startswith("+from ") for hunk in hunks for line in hunk)


TURNED = """
import numpy as np
from PIL import Image
from data.transformation import get_transforms

picture = np.zeros((32, 32, 3), "u1")
picture[:8, :8] = 200
transform, _ = get_transforms(32, "from_above")
print(len({transform(Image.fromarray(picture))[0].argmax().item() for _ in range(60)}))  # corners with light in them
"""


def test_the_examples_are_a_file_and_a_line_each_and_all_work_together(desk):
    project = desk.home / "extended"
    shutil.copytree(desk.home / "template", project)
    added, files, words = 0, [], []
    for block in blocks(EXAMPLES):
        if name := new_file(block):
            assert not (project / name).exists()
            (project / name).write_text(block.code, encoding="utf-8")
            files.append(name)
        elif block.language == "diff":
            added += add_lines(project, block)
        else:
            words += [command.removeprefix("python main.py ") for command in commands(block)]
    assert len(files) == 6
    assert added == 8  # seven examples, and a figure of torchmetrics' own
    desk.run("ruff check . && ruff format --check . && mypy .", cwd=project)
    (project / "wrong.py").write_text("from models import get_model\n\nget_model(3, 'resnet18')\n")
    with pytest.raises(AssertionError, match=r"wrong.py:3: error: Argument 1 to \"get_model\""):  # it does look
        desk.run("mypy .", cwd=project)

    rng = np.random.default_rng(0)  # two classes, dark and light
    arrays = {}
    for part in ("train", "val", "test"):
        labels = np.arange(40) % 2
        arrays[f"{part}_labels"] = labels[:, None]
        arrays[f"{part}_images"] = (rng.integers(0, 128, (40, 32, 32, 3)) + 127 * labels[:, None, None, None]).astype(
            "u1"
        )
    np.savez(project / "pictures.npz", **arrays)
    limit = project / "callbacks" / "__init__.py"
    limit.write_text(limit.read_text(encoding="utf-8").replace("minutes=60", "minutes=0"), encoding="utf-8")
    desk.run(f"python main.py {' '.join(words)} --epochs 5 --run-name all", cwd=project)

    run = project / "checkpoint" / "all"
    options = json.loads((run / "config.json").read_text())["options"]
    wanted = {"dataset": "arrays", "model": "convmixer", "loss": "poly", "augmentation": "from_above"}
    assert options | wanted == options
    assert json.loads((run / "classes.json").read_text()) == ["class 0", "class 1"]
    with open(run / "log.csv", newline="") as file:
        (epoch,) = csv.DictReader(file)  # no time for a second one
    assert 0 <= float(epoch["val_worst_recall"]) <= float(epoch["val_f1"])
    assert -1 <= float(epoch["val_mcc"]) <= 1
    *epochs, end = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    assert epochs[0]["val_loss"] == pytest.approx(float(epoch["val_loss"]))
    assert end["final"]["test_acc"] == json.loads((run / "metrics.json").read_text())["test_acc"]
    assert desk.run("python -", TURNED, project).strip() == "4"

    limit.write_text(limit.read_text(encoding="utf-8").replace("minutes=0", "minutes=60"), encoding="utf-8")
    words = "--dataset arrays --data-dir pictures.npz --model convmixer --weights checkpoint/all/best.pt --epochs 3"
    desk.run(f"python main.py {words} --run-name frozen --trackers none", cwd=project)
    run = project / "checkpoint" / "frozen"  # validated on cached features
    metrics = json.loads((run / "metrics.json").read_text())
    with open(run / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[metrics["best_epoch"] - 1]["val_loss"]) == pytest.approx(metrics["val_loss"], abs=2e-3)
    assert float(rows[metrics["best_epoch"] - 1]["val_f1"]) == pytest.approx(metrics["val_f1"])


@pytest.fixture(scope="module")
def helps(desk) -> dict[str, set[str]]:
    """The options of each script, as its `--help` lists them."""
    text = {name: desk.run(f"python {name} --help", cwd=desk.home / "template") for name in SCRIPTS}
    listed = r"^ +(?:-h, )?(--[a-z].*?)(?:  |$)"  # "--strict, --no-strict", "--lr FLOAT"
    lines = {name: re.findall(listed, found, re.MULTILINE) for name, found in text.items()}
    return {name: set(re.findall(OPTION, " ".join(found))) for name, found in lines.items()}


def test_the_table_of_options_is_that_of_the_help(helps):
    section = DOCUMENTS["template/README.md"].partition("\n## Options\n")[2].partition("\n- **")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    named = re.findall(OPTION, "\n".join(table))
    assert len(named) == len(set(named))
    assert set(named) == {name for name in helps["main.py"] if not name.startswith("--no-")} - {"--help"}


def test_every_option_in_the_documents_is_one_of_the_script_it_is_given_to(desk, helps):
    for script in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")]:
        helps[f"{script.parent.name}/{script.name}"] = set(re.findall(OPTION, desk.run(f"python {script} --help")))
    known = set().union(*helps.values(), *OTHERS.values())
    for text in (*DOCUMENTS.values(), EXAMPLES):
        assert set(re.findall(rf"(?<![\w-]){OPTION}", re.sub(r"<!--.*?-->|\|?[ :-]+\|", "", text))) <= known
        for name, options in helps.items():
            for line in re.findall(rf"(?<=[` ]){re.escape(name)} ([^`#\n]*)", re.sub(r"\n +", " ", text)):
                assert set(re.findall(rf"(?<!\S){OPTION}", line)) <= options, f"{name} {line}"


def test_no_option_of_another_program_is_listed_in_vain():
    text = "".join((*DOCUMENTS.values(), EXAMPLES))
    for program, options in OTHERS.items():
        assert program in text or program == "sbatch"
        for option in options:
            assert option in text, option


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


def test_the_documents_name_what_the_registries_hold(desk):
    project = desk.home / "template"
    registries = json.loads(desk.run("python -", REGISTRIES, project))
    text, options = DOCUMENTS["template/README.md"], desk.run("python main.py --help", cwd=project)

    rows = re.findall(r"^\| (`.*?) \|", text.partition("| `--dataset` |")[2].partition("\n\n")[0], re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(registries["DATASETS"])
    (named,) = re.findall(r"`--trackers ([a-z ]+)`, any of them", text)
    assert named.split() == registries["TRACKERS"]
    (named,) = re.findall(r"`--metrics ([a-z0-9 ]+)`", text)
    assert set(named.split()) <= set(registries["METRICS"])
    (bullet,) = re.findall(r"^- \*\*Schedules\.\*\* (.*?)\n- ", text, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", bullet)) <= set(registries["SCHEDULES"])
    (bullet,) = re.findall(r"^- \*\*Networks\.\*\* .*?one's own: (.*?)\. ", text, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", bullet)) == set(registries["MODELS"]) - {"resnet18"}

    words = set(re.findall(r"\w+", options))
    for name, keys in registries.items():  # those of f1_weighted and the like are not all listed
        missing = {key for key in keys if key not in words and not key.endswith("_weighted")}
        assert missing <= {"my_dataset"}, name
    table = text.partition("## Make it yours")[2]
    for name in registries:
        assert f"`{name}`" in table, name


def test_every_file_in_the_documents_is_there(desk):
    text = DOCUMENTS["template/README.md"]
    for name in set(re.findall(r"`([\w/.]+\.(?:py|ipynb|jinja|toml|example|md))`", text + EXAMPLES)):
        own = f"The file is `{name}`" in EXAMPLES
        folder = ROOT if name.startswith("benchmarks/") else TEMPLATE
        assert (folder / name).exists() != own, name
    for name in re.findall(r"\]\(([\w/.]+)\)|`((?:template|tests|benchmarks|docs)/[\w/.]*)`", DOCUMENTS["README.md"]):
        assert (ROOT / "".join(name)).exists(), name
    table = text.partition("| file | |")[2].partition("\n\n")[0]
    for folder, contents in re.findall(r"^\| `(\w+)/` \| (.*) \|$", table, re.MULTILINE):
        for name in set(re.findall(r"`([\w/]+)`", contents)):
            assert any((TEMPLATE / folder / f"{name}{end}").exists() for end in ("", ".py")), f"{folder}/{name}"

    desk.run("python evaluate.py checkpoint/RUN", cwd=desk.home / "template")
    run = desk.home / "template" / "checkpoint" / "RUN"
    table = text.partition("| in `checkpoint/<run-name>/` |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`([\w-]+\.\w+)`", row.split(" | ")[0])}
    assert len(named) > 15
    for name in named - {"thresholds.json"}:  # only where an image can have several classes
        assert (run / name).exists(), name
