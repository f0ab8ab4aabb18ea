"""Every path of the project, defined once."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """The folders of a project. All of them follow `base_dir`; none is created before something is put in it."""

    base_dir: Path = Path(__file__).resolve().parent

    @property
    def data_dir(self) -> Path:
        """Your pictures."""
        return Path(self.base_dir) / "dataset"

    @property
    def checkpoint_dir(self) -> Path:
        """One folder for each run, and nothing else."""
        return Path(self.base_dir) / "checkpoint"

    @property
    def cache_dir(self) -> Path:
        """What can be deleted at any time, because it is made again."""
        return Path(self.base_dir) / ".cache"

    @property
    def env_file(self) -> Path:
        """Keys of trackers, never committed."""
        return Path(self.base_dir) / ".env"


@dataclass(frozen=True)
class Run:
    """The files that a run leaves in its folder."""

    folder: Path

    def __post_init__(self) -> None:
        """Makes the path absolute, so that it stays true when the current folder changes."""
        object.__setattr__(self, "folder", Path(self.folder).resolve())

    def __truediv__(self, name: str) -> Path:
        """`run / "curves.png"`: any other file of the folder."""
        return self.folder / name

    config = property(lambda self: self / "config.json")  # every option, versions, git commit
    classes = property(lambda self: self / "classes.json")  # names by label
    thresholds = property(lambda self: self / "thresholds.json")  # by class; only where an image can have several
    check = property(lambda self: self / "check.json")  # what data.check says of its pictures
    calibration = property(lambda self: self / "calibration.json")  # when the network is sure
    report = property(lambda self: self / "report.html")  # all of it on one page
    split = property(lambda self: self / "split.json")  # files of each part
    best = property(lambda self: self / "best.pt")  # weights of the best epoch
    last = property(lambda self: self / "last.pt")  # all that resume needs
    log = property(lambda self: self / "log.csv")  # a row for each epoch
    metrics = property(lambda self: self / "metrics.json")  # final figures of best.pt
    times = property(lambda self: self / "times.json")  # what the last command that trained spent its time on
    predictions = property(lambda self: self / "predictions.csv")  # the test set, image by image


project = Project()
