"""Around a run: its options, chosen and read again, and its folder, made only when nothing can go wrong any more."""

import logging
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import Config, dashes, parse
from distributed import from_first, rank
from Project import Project, Run, project
from utils import UserError, brief, read_json, replacing, versions, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from calibration import Calibration
    from data import Data
    from data.transformation import Transform
    from models import Classifier
    from scores import Scores

logger = logging.getLogger(__name__)

# What may differ from the interrupted run without changing what it would have computed; what may be raised.
MAY_CHANGE_ON_RESUME = ("resume", "data_dir", "device", "num_workers", "keep_pictures", "trackers", "strict")
MAY_BE_RAISED_ON_RESUME = ("epochs", "patience")

# What a script prints that was stopped, where starting again finds most of its work done.
STOPPED = "stopped; to continue, type the same command again: checked images and computed features are cached"


def parse_config(argv: Sequence[str] | None = None, project: Project = project) -> Config:
    """Reads the command line. With `--resume` the options of that run are the defaults.

    Args:
        argv: the arguments; those of the process by default.
        project: where `--resume latest` looks for runs.

    Raises:
        UserError: a value is out of range, or an option cannot be changed on resume.
    """
    config = parse(Config, argv)
    if config.resume is None:
        return config
    folder = latest_run(project) if config.resume == Path("latest") else config.resume
    saved = replace(load_config(open_run(folder)), resume=folder)
    config = replace(parse(Config, argv, default=saved), resume=folder)
    for field in fields(Config):
        before, now = getattr(saved, field.name), getattr(config, field.name)
        if field.name in MAY_BE_RAISED_ON_RESUME:
            if now < before:
                raise UserError(f"--{field.name} {now}: the run has {before}, which can only be raised on resume")
        elif now != before and field.name not in MAY_CHANGE_ON_RESUME:
            raise UserError(
                f"--{dashes(field.name)} {now} cannot be changed on resume (the run has {before}); start a new run"
            )
    if config.epochs > saved.epochs and config.schedule not in ("plateau", "constant"):
        raise UserError(
            f"--epochs {config.epochs}: the schedule {config.schedule} was laid out for {saved.epochs} epochs; "
            "start a new run"
        )
    return config


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


def load_config(run: Run) -> Config:
    """The options that a run was started with.

    Raises:
        UserError: its config.json cannot be read.
    """
    try:
        saved = read_json(run.config)["options"]
        names = {field.name for field in fields(Config)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()
        }
        config = Config(**{name: value for name, value in values.items() if name in names})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.config} cannot be read ({brief(error)}); was it changed?") from error
    return replace(config, data_dir=config.data_dir and Path(config.data_dir), resume=None)


def describe(config: Config) -> dict[str, Any]:
    """What goes into config.json: the options, the command, the versions of the libraries, the git commit if any."""
    found = versions("torch", "torchvision", "poutyne", "imaug", "numpy", "pillow")
    git = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    options = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
    del options["resume"]  # where it was resumed from is here
    return {"options": options, "versions": {"python": sys.version.split()[0], **found}, "git_commit": commit}


def choose_dataset(config: Config, project: Project) -> Config:
    """Fills in which data set it is: the one asked for, else the project's own pictures, else the demo.

    Args:
        config: as typed.
        project: its `data_dir` is looked at.

    Returns:
        The config with `dataset`, and with `data_dir` absolute if it was given.

    Raises:
        UserError: the folder that was given does not exist.
    """
    from data.images import images_in

    name = config.dataset
    if config.data_dir and not config.data_dir.exists():
        advice = "give one that exists, or leave out --data-dir"
        if config.resume:
            advice = "if the images of this run are elsewhere now, say so with --data-dir"
        raise UserError(f"there is no folder {config.data_dir}; {advice}")
    if name is None:
        name = "imagefolder" if config.data_dir or any(images_in(project.data_dir)) else "demo"
        if config.data_dir and config.data_dir.suffix == ".csv":
            name = "csv"
        if name == "demo":
            logger.info("There is no image in %s, so this is the demo.", project.data_dir)
    return replace(config, dataset=name, data_dir=config.data_dir and config.data_dir.resolve())


def resolve(config: Config, data: "Data", network: "Classifier") -> Config:
    """Give each option that is still None the value that suits the data and the network.

    Args:
        config: with weights and freeze filled in.
        data: its size, its labels and what it suggests.
        network: as it will be trained.
    """
    from models import suited_size
    from optim import default_lr

    size, fixed = suited_size(config.model)
    # Features that were learned at one size are worth less at another; from scratch, small images are quicker.
    as_trained = size and (fixed or config.weights != "none" or data.image_size == 224)
    return replace(
        config,
        image_size=config.image_size or (size if as_trained else data.image_size),
        augmentation=config.augmentation or data.augmentation,
        loss=config.loss or ("bce" if data.multilabel else "cross_entropy"),
        lr=config.lr or default_lr(config, network, len(data.train)),
    )


def data_folder(config: Config, project: Project) -> Path:
    """Where the pictures are: what was given, else the project's own folder, or its cache where it gets them itself."""
    from data import OBTAINED

    if config.data_dir is None and config.dataset in OBTAINED:
        return project.cache_dir / OBTAINED[config.dataset]
    return config.data_dir or project.data_dir


def data_of(run: Run, config: Config, project: Project, data_dir: Path | None) -> "Data":
    """The images of a finished run, dealt out as they were then.

    Args:
        run: has its split and its classes.
        config: of the run.
        project: where the images are if nobody says so.
        data_dir: where they are now; nothing is downloaded or drawn there.

    Raises:
        UserError: they are not there, not all of them, or are others now.
    """
    from data import get_data, is_there

    if data_dir and not is_there(config.dataset, data_dir):
        raise UserError(f"there is no {config.dataset} in {data_dir}")
    folder = data_dir or data_folder(config, project)
    return get_data(config.dataset, folder, config.split, config.split_seed, run, config.fold)


@contextmanager
def run_folder(config: Config, project: Project, data: "Data") -> Iterator[Run]:
    """The folder of the run, new or resumed.

    A mistake or a stop before the first epoch is complete takes it away again; a later stop says how to continue. Of
    several processes one makes it and writes in it.

    Args:
        config: all options, filled in.
        project: where its runs are.
        data: classes and split are written down.

    Raises:
        UserError: there is a run of that name.
    """
    from data.splits import SPLITS, file_names

    if config.resume:
        run = Run(config.resume)
        before = run.config.read_bytes()
        if rank() == 0:
            write_json(run.config, describe(config))
        try:
            yield run
        except UserError:
            if rank() == 0:  # what could not be done is no option of the run
                with replacing(run.config, "wb") as file:
                    file.write(before)
            raise
        except KeyboardInterrupt as error:
            error.add_note(how_to_resume(run))
            raise
        return
    name = config.run_name or time.strftime("%Y-%m-%d_%H-%M-%S_") + config.model.replace("/", "_")
    while not config.run_name and (project.checkpoint_dir / name).exists():
        name += "_"  # another one has started within the same second
    name = from_first(name)
    run = Run(project.checkpoint_dir / name)
    if rank() > 0:
        yield run
        return
    try:
        run.folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"there is a run {run.folder}; choose another --run-name, or go on with --resume") from error
    try:
        write_json(run.config, describe(replace(config, run_name=name)))
        write_json(run.classes, data.classes)
        write_json(run.split, {part: file_names(getattr(data, part)) for part in SPLITS})
        if data.multilabel:
            write_json(run.thresholds, dict.fromkeys(data.classes, 0.5))  # until the best ones are known
        yield run
    except (UserError, KeyboardInterrupt) as error:
        if not run.best.exists():
            shutil.rmtree(run.folder)
        elif run.last.exists():
            error.add_note(how_to_resume(run))
        raise


def how_to_resume(run: Run) -> str:
    """Return the line for a stopped run, with a command that works in the current folder."""
    script = Path(__file__).resolve().with_name("main.py")
    return f"stopped; to continue: {shlex.join(['python', from_here(script), '--resume', from_here(run.folder)])}"


def from_here(path: Path) -> str:
    """Return a path relative to the current folder if it is below it, else as it is."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


@dataclass(frozen=True)
class LoadedRun:
    """A finished run, for a notebook.

    Attributes:
        run: paths of its files.
        config: its options.
        classes: names by label.
        network: with its best weights, in eval mode: uint8 (N, 3, H, W) → logits (N, n_classes).
        transform: PIL image in RGB → uint8 tensor, as the network takes it.
        calibration: how sure is sure.
        log: log.csv as a table.
        scores: of the test set, from predictions.csv.
    """

    run: Run
    config: Config
    classes: list[str]
    network: "Classifier"
    transform: "Transform"
    calibration: "Calibration"
    log: "DataFrame"
    scores: "Scores"

    def figures(self) -> dict[str, "Figure"]:
        """The pictures of report.html."""
        from page import figures

        return {name: draw() for name, draw in figures(self.run, self.scores).items()}


def load_run(folder: str | Path) -> LoadedRun:
    """A finished run with all that one would look at.

    Args:
        folder: of the run, wherever it was moved.

    Raises:
        UserError: it is none, or something in it is missing.
    """
    import pandas as pd

    from calibration import load_calibration
    from data import get_transforms
    from models import load_network
    from scores import read_log, read_scores

    run = open_run(Path(folder))
    config = load_config(run)
    return LoadedRun(
        run,
        config,
        read_json(run.classes),
        load_network(run),
        get_transforms(config.image_size, resize=config.resize)[1],
        load_calibration(run),
        pd.DataFrame(read_log(run)),
        read_scores(run),
    )
