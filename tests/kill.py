"""Kills a training again and again, and looks at what is left each time.

python tests/kill.py [N]     a line of JSON; exit code 1 if anything was lost

Each training is a forked process, so that a kill costs a second and not the import of torch. Half of the kills come at
a random time, the others at a chosen place: while a checkpoint is written, between two files, in validation.
"""

import csv
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "template"))

from matplotlib.figure import Figure
from PIL import Image

import callbacks
import main as main_script
import models
from callbacks import ProgressBar, load_state
from config import Config
from core import files
from data.demo import draw_demo
from Project import Project, Run

EPOCHS = 60
PLACES = (
    "half a checkpoint",
    "before the move",
    "after the move",
    "in training",
    "in validation",
    "after the log",
)


def die() -> None:
    """As the kernel does it when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(place: str, count: int) -> None:
    """Changes this process so that it dies when it is in this place for the `count`-th time."""
    left = iter(range(count, -1, -1))

    def here() -> None:
        if next(left, 1) == 0:
            die()

    write, replace = files.write_tensors, os.replace
    started, scored, logged = (
        ProgressBar.on_train_batch_end,
        ProgressBar.on_valid_batch_end,
        callbacks.EpochLogger._on_epoch_end_write,
    )

    def half(state, file) -> None:
        write(state, file)
        file.flush()
        os.truncate(file.fileno(), os.fstat(file.fileno()).st_size // 2)
        here()
        file.seek(0)
        write(state, file)

    def move(source, target) -> None:
        if str(target).endswith(".pt") and place == "before the move":
            here()
        replace(source, target)
        if str(target).endswith(".pt") and place == "after the move":
            here()

    if place == "half a checkpoint":
        for name in ("ResumeCheckpoint", "BestCheckpoint"):
            sys.modules[f"callbacks.{name}"].write_tensors = half
    elif "move" in place:
        os.replace = move
    elif place == "in training":
        ProgressBar.on_train_batch_end = lambda self, *args: here() or started(self, *args)
    elif place == "in validation":
        ProgressBar.on_valid_batch_end = lambda self, *args: here() or scored(self, *args)
    else:
        callbacks.EpochLogger._on_epoch_end_write = lambda self, *args: logged(self, *args) or here()


def start(project: Project, data_dir: Path, name: str, place: str | None = None, count: int = 0) -> int:
    """Starts a training, or goes on with it, in a process of its own; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        if place:
            die_at(place, count)
        run = Run(project.checkpoint_dir / name)
        main_script.main(
            Config(
                data_dir=data_dir,
                model="my_cnn",
                image_size=32,
                batch_size=8,
                epochs=EPOCHS,
                patience=EPOCHS,
                num_workers=0,
                trackers=("none",),
                device="cpu",
                run_name=name,
                resume=run.folder if run.last.exists() else None,
            ),
            project,
        )
        code = 0
    except BaseException:
        traceback.print_exc()  # os._exit would swallow it
    finally:
        sys.stderr.flush()
        os._exit(code)


def rows_of(run: Run) -> list[dict[str, str]]:
    """log.csv but for its times."""
    with open(run.log, newline="", encoding="utf-8") as file:
        return [
            {name: value for name, value in row.items() if "time" not in name} for row in csv.DictReader(file)
        ]


def torture(folder: Path, n_kills: int, seed: int = 0) -> Counter:
    """Kills so many trainings and counts what came of it."""
    rng = random.Random(seed)
    draw_demo(folder / "photos", {"train": 12, "val": 8}, seed=1)
    project, counts = Project(folder), Counter()
    begin = time.perf_counter()
    os.waitpid(start(project, folder / "photos", "whole"), 0)
    per_epoch = (time.perf_counter() - begin) / EPOCHS
    whole = Run(project.checkpoint_dir / "whole")
    expected, last_epoch = rows_of(whole), 0
    n_run = 0
    while counts["kills"] < n_kills and counts["failed"] < 5:
        run = Run(project.checkpoint_dir / f"run{n_run}")
        place = PLACES[counts["kills"] // 2 % len(PLACES)] if counts["kills"] % 2 else None
        child = start(project, folder / "photos", run.folder.name, place, rng.randrange(1, 12))
        if place is None:
            time.sleep(rng.uniform(0, 12) * per_epoch)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):  # it was through before
            counts["ended"] += 1
            if os.WEXITSTATUS(status) != 0:
                counts["failed"] += 1
            else:
                same = rows_of(run) == expected and run.metrics.read_bytes() == whole.metrics.read_bytes()
                counts["different in the end"] += not (
                    same and run.predictions.read_bytes() == whole.predictions.read_bytes()
                )
            n_run, last_epoch = n_run + 1, 0
            continue
        counts["kills"] += 1
        counts[place or "at random"] += 1
        if not run.last.exists():  # no epoch was complete; a new run starts with the next kill
            counts["too early to resume"] += 1
            counts["lost"] += run.log.exists() and len(rows_of(run)) > 1
            n_run += 1
            continue
        complete = len(rows_of(run))
        try:
            state = load_state(Config(resume=run.folder, epochs=EPOCHS))
            network = models.load_network(run)
            counts["loaded"] += isinstance(network, models.Classifier)
        except Exception as error:
            print(f"{place}: {error!r}", file=sys.stderr)
            counts["lost"] += 1
            continue
        counts["lost"] += complete - state["epoch"] > 1 or state["epoch"] < last_epoch
        counts["log differs"] += rows_of(run) != expected[: state["epoch"]]
        last_epoch = state["epoch"]
    return counts


if __name__ == "__main__":
    torch.set_num_threads(1)  # what OpenMP has started does not survive a fork
    Figure.savefig = lambda _, file, **__: Image.new("RGB", (1, 1)).save(
        file, "PNG"
    )  # drawing takes longer than training
    with tempfile.TemporaryDirectory() as temporary:
        found = torture(Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 50)
    print(json.dumps(found))
    sys.exit(any(found[name] for name in ("lost", "failed", "log differs", "different in the end")))
