"""The folder of a run: made only when nothing can go wrong any more, found and opened again."""

import logging
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.files import atomic_write, write_json
from core.processes import broadcast_object, rank
from Project import Project, Run

logger = logging.getLogger(__name__)


def latest_run(project: Project) -> Path:
    """Return the folder of the newest run: of the one whose `last.pt`, or else whose folder, was written last.

    Raises:
        UserError: there is no run.
    """
    runs = [Run(folder) for folder in project.checkpoint_dir.glob("*")]
    runs = [run for run in runs if run.config.is_file()]
    if not runs:
        raise UserError(f"--resume latest: there is no run in {project.checkpoint_dir}; start one without --resume")
    newest = max(runs, key=lambda run: (run.last if run.last.exists() else run.folder).stat().st_mtime)
    logger.info("The latest run is %s.", newest.folder)
    return newest.folder


def open_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        UserError: it is not the folder of a run.
    """
    run = Run(folder)
    if not run.folder.is_dir():
        raise UserError(f"there is no folder {folder}; expected is the folder of a run, such as checkpoint/<run-name>")
    if missing := [file.name for file in (run.config, run.classes) if not file.is_file()]:
        raise UserError(f"{folder} is not the folder of a run: it holds no {missing[0]}")
    return run


def new_name(project: Project, model: str) -> str:
    """Return a name for a new run, from the time and the model; several processes get the same one."""
    name = time.strftime("%Y-%m-%d_%H-%M-%S_") + model.replace("/", "_")
    while (project.checkpoint_dir / name).exists():
        name += "_"  # another one has started within the same second
    return broadcast_object(name)


@contextmanager
def create_run(project: Project, name: str, files: Mapping[str, Any]) -> Iterator[Run]:
    """Make the folder of a new run.

    A mistake or a stop before the first epoch is complete takes it away again; a later stop says how to continue. Of
    several processes one makes it and writes in it.

    Args:
        project: where its runs are.
        name: of the folder.
        files: what describes the run, by the names of the JSON files.

    Raises:
        UserError: there is a run of that name.
    """
    run = Run(project.checkpoint_dir / name)
    if rank() > 0:
        yield run
        return
    try:
        run.folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"there is a run {run.folder}; choose another --run-name, or go on with --resume") from error
    try:
        for file, content in files.items():
            write_json(run / file, content)
        yield run
    except (UserError, KeyboardInterrupt) as error:
        if not run.best.exists():
            shutil.rmtree(run.folder)
        elif run.last.exists():
            error.add_note(how_to_resume(run))
        raise


@contextmanager
def resume_run(folder: Path, config: Any) -> Iterator[Run]:
    """Open the folder of a run that continues, and write down its options, which may have changed.

    Args:
        folder: of the run.
        config: content of its config.json; the former one is put back after a mistake.
    """
    run = Run(folder)
    before = run.config.read_bytes()
    if rank() == 0:
        write_json(run.config, config)
    try:
        yield run
    except UserError:
        if rank() == 0:
            with atomic_write(run.config, "wb") as file:
                file.write(before)
        raise
    except KeyboardInterrupt as error:
        error.add_note(how_to_resume(run))
        raise


def how_to_resume(run: Run) -> str:
    """Return the line for a stopped run, with a command that works in the current folder."""
    script = Path(__file__).resolve().parents[1] / "main.py"
    return f"stopped; to continue: {shlex.join(['python', from_here(script), '--resume', from_here(run.folder)])}"


def from_here(path: Path) -> str:
    """Return a path relative to the current folder if it is below it, else as it is."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
