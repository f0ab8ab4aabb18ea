"""The options: the only list of them. Each field's docstring, a line however long, is its help."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from core.cli import check_at_least, option_name, parse
from core.environment import versions
from core.errors import UserError, format_error
from core.files import read_json
from core.run_folder import create_run, latest_run, new_name, open_run, resume_run
from Project import Project, Run, project


@dataclass(frozen=True)
class Config:
    """Trains an image classifier; leaves all of it in checkpoint/<run-name>/."""

    dataset: str | None = None
    """imagefolder, csv, tiny_imagenet, demo, one of torchvision's (mnist, kmnist, fashion_mnist, cifar10, cifar100, flowers102, oxford_iiit_pet, food101) or your own in data/. If not given: imagefolder, or demo where dataset/ holds no image."""
    data_dir: Path | None = None
    """Folder with the pictures, or the table. If not given: dataset/."""
    split: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of training, validation and test set where the pictures come in one piece. Where there is a val/ but no test/, the last two say how val/ is shared out."""
    split_seed: int = 0
    """Decides which pictures become validation and test set where they come without such a split."""
    fold: tuple[int, int] | None = None
    """I K: of training and validation set together, the I-th of K parts is for validation and the rest to train."""
    image_size: int | None = None
    """Side of the square that the network sees, in pixels. Default: with weights, that of the images they were trained with; from scratch, what suits the data set."""
    resize: str = "crop"
    """How an image becomes that square: crop (cut one out of it), pad (all of it, black around it), squash (all of it, distorted) or your own in data/transformation/."""
    augmentation: str | None = None
    """photographs, small, characters, none or your own in data/transformation/. If not given: what suits the data."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """For classes of different sizes: weights counts small ones more in the loss, sampler draws them more often."""
    strict: bool = False
    """Refuse to train where the same picture is in two splits or under two labels, instead of a warning."""

    model: str = "resnet18"
    """resnet18, my_cnn, any classification network of torchvision (efficientnet_b3, vit_b_16 …), timm/NAME, or one of your own in models/."""
    weights: str | None = None
    """imagenet, none or a file. With weights the backbone is frozen and only the head trains; with none, everything trains. If not given: imagenet for networks that have such weights, else none."""
    freeze: Literal["all", "none"] | int | None = None
    """all of the backbone, none of it, or so many of its stages, from the picture on. If not given: all with weights, none without."""
    unfreeze_epoch: int | None = None
    """From this epoch on the frozen stages begin to train, the last one first, one more with each epoch, at a 100th of the head's learning rate and less."""
    cached_views: int | None = None
    """Augmented views of each training image whose features are cached; 0 computes a new view in each epoch. Default: 2 where the backbone is frozen, else 0."""
    normalize: Literal["imagenet", "data", "none"] = "imagenet"
    """Mean and deviation that the network expects: those that its weights were trained with, those of your training set, or none at all."""

    epochs: int = 20
    """How many times the training set is gone through, at most."""
    batch_size: int = 32
    """Images in a batch; under torchrun, of all processes together."""
    lr: float | None = None
    """Learning rate at the start. Default: 0.003 for the head alone, less where an epoch has more than 200 steps; 0.0001 for a whole pretrained network; 0.001 from scratch."""
    optimizer: str = "adam"
    """adam, adamw, nadam, radam, adagrad, rmsprop, sgd or your own in training/optimizers.py."""
    weight_decay: float | None = None
    """How strongly large weights are drawn to zero. If not given: the optimizer's own default."""
    lr_schedule: str = "plateau"
    """What becomes of the rate: plateau (cut where nothing improves), cosine (after a warm-up), one_cycle, step or constant."""
    mixup: Literal["none", "mixup", "cutmix"] = "none"
    """Mixes each training picture with another one, and their labels likewise."""
    grad_clip_norm: float | None = None
    """Cuts gradients back to this norm."""
    grad_accum_steps: int = 1
    """Batches whose gradients are added up for one step of the optimizer."""
    loss: str | None = None
    """cross_entropy, label_smoothing, bce or one of your own in losses/. If not given: bce where an image can have several classes, else cross_entropy."""
    metrics: tuple[str, ...] = ("f1",)
    """Figures in the log beside loss and accuracy: f1, precision, recall (macro; or f1_weighted …), auc, top5 or your own in metrics/."""
    patience: int | None = None
    """Epochs without improvement until training stops; after half of them the rate is cut. If not given: epochs / 2."""
    max_error: float = 0.05
    """The share of all images that predict.py may answer wrongly, on average over images like those it was trained on; to keep to it, it says unsure. Of the answers given a larger share may be wrong: the log and the report say how large it is."""

    find_lr: bool = False
    """Before the training, try learning rates and draw which one suits into lr_finder.png; changes nothing else."""

    seed: int = 0
    """Drives the initial weights, the order of the images and their augmentation."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Compute the backbone in half the precision while training. auto: where it is frozen and the device is fast at it."""
    compile: bool = False
    """Let torch compile the backbone; the first batches take a minute."""
    cache_images: bool = False
    """Keep pictures as they are once decoded and scaled, in .cache/: a quarter of a megabyte each at 224 px. Later epochs and runs read them faster."""
    num_workers: int | None = None
    """Processes that read images. If not given: one a core, 8 at most."""

    run_name: str | None = None
    """Name of the run's folder in checkpoint/. If not given: date, time and model."""
    trackers: tuple[str, ...] = ("comet",)
    """comet, tensorboard, mlflow, wandb, several of them, or none. log.csv is written in any case."""
    resume: Path | None = None
    """A run's folder, or latest for the newest run in checkpoint/: continue after its last complete epoch, with its options."""

    def __post_init__(self) -> None:
        """Refuses what cannot work, before anything is imported or written; fills in the patience."""
        check_at_least(1, self, "epochs", "batch_size", "image_size", "patience", "grad_accum_steps", "unfreeze_epoch")
        check_at_least(0, self, "seed", "split_seed", "num_workers", "weight_decay", "cached_views")
        if self.unfreeze_epoch and self.unfreeze_epoch > self.epochs:
            raise UserError(f"--unfreeze-epoch {self.unfreeze_epoch}: the training ends with epoch {self.epochs}")
        if isinstance(self.freeze, int):
            check_at_least(0, self, "freeze")
        for name in ("seed", "split_seed"):
            if getattr(self, name) >= 2**32:
                raise UserError(f"--{option_name(name)} {getattr(self, name)}: less than {2**32} is needed")
        if abs(sum(self.split) - 1) > 1e-6 or min(self.split) <= 0:
            raise UserError(f"--split {' '.join(map(str, self.split))}: shares above 0 are needed that add up to 1")
        if self.fold and not 1 <= self.fold[0] <= self.fold[1] > 1:
            raise UserError(f"--fold {self.fold[0]} {self.fold[1]}: the first is from 1 to the second")
        if self.dataset == "demo" and self.data_dir:
            raise UserError("--dataset demo draws its own pictures; leave out --data-dir, or --dataset")
        if self.patience is None:  # kept with the run, so that more epochs on resume do not change it
            object.__setattr__(self, "patience", max(1, self.epochs // 2))
        for name in ("lr", "grad_clip_norm"):
            if (value := getattr(self, name)) is not None and not 0 < value < float("inf"):
                raise UserError(f"--{option_name(name)} {value}: a number above 0 is needed")
        if not 0 < self.max_error < 1:
            raise UserError(f"--max-error {self.max_error}: a share between 0 and 1 is needed")
        name = self.run_name
        if name is not None and (name in ("", ".", "..") or set(name) & set("/\\\0") or len(os.fsencode(name)) > 200):
            raise UserError(f"--run-name {name!r}: give a plain folder name")


HEADINGS = {"--dataset": "data", "--model": "network", "--epochs": "training", "--seed": "machine", "--run-name": "run"}

# What may differ from the interrupted run without changing what it would have computed; what may be raised.
MAY_CHANGE_ON_RESUME = ("resume", "data_dir", "device", "num_workers", "cache_images", "trackers", "strict")
MAY_BE_RAISED_ON_RESUME = ("epochs", "patience")


def parse_config(argv: Sequence[str] | None = None, project: Project = project) -> Config:
    """Reads the command line. With `--resume` the options of that run are the defaults.

    Args:
        argv: the arguments; those of the process by default.
        project: where `--resume latest` looks for runs.

    Raises:
        UserError: a value is out of range, or an option cannot be changed on resume.
    """
    config = parse(Config, argv, HEADINGS)
    if config.resume is None:
        return config
    folder = latest_run(project) if config.resume == Path("latest") else config.resume
    saved = replace(load_config(open_run(folder)), resume=folder)
    config = replace(parse(Config, argv, HEADINGS, default=saved), resume=folder)
    for field in fields(Config):
        before, now = getattr(saved, field.name), getattr(config, field.name)
        if field.name in MAY_BE_RAISED_ON_RESUME:
            if now < before:
                raise UserError(f"--{field.name} {now}: the run has {before}, which can only be raised on resume")
        elif now != before and field.name not in MAY_CHANGE_ON_RESUME:
            raise UserError(
                f"--{option_name(field.name)} {now} cannot be changed on resume (the run has {before}); start a new run"
            )
    if config.epochs > saved.epochs and config.lr_schedule not in ("plateau", "constant"):
        raise UserError(
            f"--epochs {config.epochs}: the schedule {config.lr_schedule} was laid out for {saved.epochs} epochs; "
            "start a new run"
        )
    return config


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
        raise UserError(f"{run.config} cannot be read ({format_error(error)}); was it changed?") from error
    return replace(config, data_dir=config.data_dir and Path(config.data_dir), resume=None)


def start_run(config: Config, project: Project, files: Mapping[str, Any]) -> AbstractContextManager[Run]:
    """Return the folder of the run, new or resumed, as a context that the training happens in.

    Args:
        config: all options, resolved.
        project: where its runs are.
        files: what describes the data, by the names of the JSON files.

    Raises:
        UserError: there is a run of that name.
    """
    if config.resume:
        return resume_run(config.resume, describe(config))
    name = config.run_name or new_name(project, config.model)
    return create_run(project, name, {"config.json": describe(replace(config, run_name=name)), **files})


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
