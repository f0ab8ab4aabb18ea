"""Run folders: created last, when all checks have passed; found and opened again."""

import logging
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.environment import rank
from core.errors import UserError
from core.files import atomic_write, write_json
from Project import BASE_DIR, Project, Run

logger = logging.getLogger(__name__)


def latest_run(project: Project) -> Path:
    """Return the folder of the latest run, by the time of its `last.pt`, or of the folder if it has none."""
    times = {}
    for config in project.checkpoint_dir.glob("*/config.json"):
        run = Run(config.parent)
        written = run.last if run.last.exists() else run.folder
        times[run.folder] = written.stat().st_mtime
    if not times:
        raise UserError(
            f"--resume latest: there is no run in {project.checkpoint_dir}; start one without --resume"
        )
    latest = max(times, key=times.get)
    logger.info("The latest run is %s.", latest)
    return latest


def open_run(folder: Path) -> Run:
    """Return the run in a folder; raise a UserError if it is not a run folder."""
    run = Run(folder)
    if not run.folder.is_dir():
        raise UserError(f"there is no folder {folder}; give a run folder, such as checkpoint/<run-name>")
    for file in run.config, run.classes:
        if not file.is_file():
            raise UserError(f"{folder} is not a run folder: it has no {file.name}")
    return run


def new_name(project: Project, model: str) -> str:
    """Return a name for a new run, made of the time and the model; the same in all processes."""
    from core.processes import broadcast_object  # imports torch

    name = time.strftime("%Y-%m-%d_%H-%M-%S_") + model.replace("/", "_")
    while (project.checkpoint_dir / name).exists():
        name += "_"  # a run that started in the same second
    return broadcast_object(name)


@contextmanager
def open_for_training(run: Run, files: Mapping[str, Any], resumed: bool) -> Iterator[Run]:
    """Create or reopen a run folder, in rank 0, and write JSON files, given by name, into it.

    A user error or a stop within the first epoch deletes a new folder; a user error restores the config.json of a
    resumed run; a later stop gets a note that tells how to resume.
    """
    if rank() > 0:
        yield run
        return
    if run.folder.exists() and not resumed:
        raise UserError(f"there is a run {run.folder}; choose another --run-name, or continue with --resume")
    run.folder.mkdir(parents=True, exist_ok=True)
    former_config = run.config.read_bytes() if resumed else b""
    try:
        for name, content in files.items():
            write_json(run / name, content)
        yield run
    except (UserError, KeyboardInterrupt) as error:
        if not run.best.exists():
            shutil.rmtree(run.folder)
        elif resumed and isinstance(error, UserError):
            with atomic_write(run.config, "wb") as file:
                file.write(former_config)
        elif run.last.exists():
            error.add_note(f"stopped; to continue: {command('main.py', '--resume', shorten(run.folder))}")
        raise


def command(script: str, *arguments: str) -> str:
    """Return the command line that runs a script of this project from the current folder."""
    return shlex.join(["python", shorten(BASE_DIR / script), *arguments])


def shorten(path: Path) -> str:
    """Return a path relative to the current folder if it is below it, else the absolute path."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
