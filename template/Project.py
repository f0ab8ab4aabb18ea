"""Paths of the project and of its runs, each defined once."""

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent


class Project:
    """Paths of a project, below its `base_dir`. No folder is created before something is written to it."""

    def __init__(self, base_dir: Path = BASE_DIR) -> None:
        self.base_dir = Path(base_dir)
        self.data_dir = self.base_dir / "dataset"  # your images
        self.checkpoint_dir = self.base_dir / "checkpoint"  # a folder for each run, and nothing else
        self.cache_dir = self.base_dir / ".cache"  # can be deleted at any time: it is computed again
        self.env_file = self.base_dir / ".env"  # keys of trackers, never committed


class Run:
    """Paths of the files in a run folder; absolute, so that they hold when the current folder changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).resolve()
        self.config = self / "config.json"  # every option, library versions, git commit
        self.classes = self / "classes.json"  # class names by label
        self.thresholds = self / "thresholds.json"  # by class; only if an image can have several
        self.split = self / "split.json"  # files of each split
        self.check = self / "check.json"  # findings of data.check
        self.best = self / "best.pt"  # weights of the best epoch
        self.last = self / "last.pt"  # everything that resume needs
        self.log = self / "log.csv"  # a row for each epoch
        self.metrics = self / "metrics.json"  # final metrics of best.pt
        self.calibration = self / "calibration.json"  # temperature and confidence threshold
        self.predictions = self / "predictions.csv"  # test set, a row for each image
        self.times = self / "times.json"  # seconds spent on each part of the last training
        self.report = self / "report.html"  # everything on one page

    def __truediv__(self, name: str) -> Path:
        """Return the path of another file, as in `run / "curves.png"`."""
        return self.folder / name


project = Project()
