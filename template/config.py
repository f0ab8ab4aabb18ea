"""The options of main.py: each is a field of `Config`, and its docstring, one line however long, is its help."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from core.cli import option_name, parse
from core.environment import versions
from core.errors import UserError, format_error
from core.files import read_json
from core.ranges import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    check_ranges,
)
from core.run_folder import latest_run, new_name, open_for_training, open_run
from Project import BASE_DIR, Project, Run, project


@dataclass(frozen=True)
class Config:
    """Train an image classifier; everything it leaves is in checkpoint/<run-name>/."""

    dataset: str | None = None
    """imagefolder, csv, tiny_imagenet, demo, one of torchvision's (mnist, kmnist, fashion_mnist, cifar10, cifar100, flowers102, oxford_iiit_pet, food101) or a custom one in data/ (default: imagefolder, or demo if dataset/ holds no image)."""
    data_dir: Path | None = None
    """Folder with the images, or the table of csv (default: dataset/)."""
    split: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Fractions of training, validation and test set, for data without splits of its own; with a val/ but no test/, val/ is split in proportion to the last two."""
    split_seed: Seed = 0
    """Seed of the split, for data without splits of its own."""
    fold: tuple[int, int] | None = None
    """I K: cross-validation; validate on the I-th of K parts of training and validation set together, and train on the others (default: no cross-validation)."""
    image_size: PositiveInt | None = None
    """Side of the square that the network gets, in pixels (default: with weights, the size that they were trained at; from scratch, what suits the dataset)."""
    resize: str = "crop"
    """How an image becomes that square: crop (scale the short side and crop), pad (scale the long side and fill with black), squash (ignore the aspect ratio) or a custom one in data/transformation/."""
    augmentation: str | None = None
    """photographs, small, characters, none or a custom one in data/transformation/ (default: what suits the dataset)."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """For classes of different sizes: weights gives small classes more weight in the loss, sampler draws their images more often."""
    strict: bool = False
    """Refuse to train if an image is in two splits or under two labels, instead of a warning."""

    model: str = "resnet18"
    """resnet18, my_cnn, any classification network of torchvision (efficientnet_b3, vit_b_16 …), timm/NAME or a custom one in models/."""
    weights: str | None = None
    """imagenet, none or a file. With weights the backbone is frozen and only the head trains; with none everything trains (default: imagenet for networks that have such weights, else none)."""
    freeze: Literal["all", "none"] | NonNegativeInt | None = None
    """Freeze all of the backbone, none of it or this many of its stages, from the input on (default: all with weights, none without)."""
    unfreeze_epoch: PositiveInt | None = None
    """Unfreeze the last frozen stage in this epoch and one more stage in each epoch after it, at 1/100 of the head's learning rate and less (default: never)."""
    cached_views: NonNegativeInt | None = None
    """Augmented views of each training image whose features are cached; 0 computes a new view in each epoch (default: 2 if the backbone is frozen, else 0)."""
    normalize: Literal["imagenet", "data", "none"] = "imagenet"
    """Mean and standard deviation that images are normalised by: imagenet (what the weights were trained with), data (of the training set) or none."""

    epochs: PositiveInt = 20
    """Largest number of epochs."""
    batch_size: PositiveInt = 32
    """Images in a batch; under torchrun, of all processes together."""
    lr: PositiveFloat | None = None
    """Initial learning rate (default: 0.003 for the head alone, less if an epoch has more than 200 steps; 0.0001 for a whole pretrained network; 0.001 from scratch)."""
    optimizer: str = "adam"
    """adam, adamw, nadam, radam, adagrad, rmsprop, sgd or a custom one in training/optimizers.py."""
    weight_decay: NonNegativeFloat | None = None
    """Weight decay (default: that of the optimizer)."""
    lr_schedule: str = "plateau"
    """Learning-rate schedule: plateau (cut when the validation loss stops improving), cosine (with warm-up), one_cycle, step or constant."""
    mixup: Literal["none", "mixup", "cutmix"] = "none"
    """Mix each training image and its label with another one."""
    grad_clip_norm: PositiveFloat | None = None
    """Clip the gradient norm to this value (default: no clipping)."""
    grad_accum_steps: PositiveInt = 1
    """Batches over which gradients are accumulated for one step of the optimizer."""
    loss: str | None = None
    """cross_entropy, label_smoothing, bce or a custom one in losses/ (default: bce if an image can have several classes, else cross_entropy)."""
    metrics: tuple[str, ...] = ("f1",)
    """Metrics in the log besides loss and accuracy: f1, precision, recall (macro averages; f1_weighted … for weighted ones), auc, top5 or a custom one in metrics/."""
    patience: PositiveInt | None = None
    """Epochs without improvement until training stops; plateau cuts the learning rate after half of them (default: epochs / 2)."""
    max_error: Fraction = 0.05
    """Largest fraction of all images that predict.py may answer wrongly, on average over images like the training data; it answers "unsure" as often as that needs. Among the answers given, the fraction of wrong ones can be larger: the log and the report show it."""

    find_lr: bool = False
    """Run a learning-rate range test before training and plot it to lr_finder.png; the learning rate stays as it is."""

    seed: Seed = 0
    """Seed of the initial weights, the order of the images and their augmentation."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu."""
    bf16: Literal["auto", "on", "off"] = "auto"
    """Compute the backbone in bfloat16 while training; auto: if it is frozen and the device is fast at it."""
    compile: bool = False
    """Compile the backbone with torch.compile; the first batches take a minute."""
    cache_images: bool = False
    """Cache decoded and scaled images in .cache/, a quarter of a megabyte each at 224 px, so that later epochs and runs read them faster."""
    num_workers: NonNegativeInt | None = None
    """Processes that read images (default: one for each core, at most 8)."""

    run_name: str | None = None
    """Name of the run's folder in checkpoint/ (default: date, time and model)."""
    trackers: tuple[str, ...] = ("comet",)
    """comet, tensorboard, mlflow, wandb, several of them, or none; log.csv is always written."""
    resume: Path | None = None
    """Run folder, or latest for the newest one: continue after its last complete epoch, with its options (default: start a new run)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.unfreeze_epoch and self.unfreeze_epoch > self.epochs:
            raise UserError(f"--unfreeze-epoch {self.unfreeze_epoch}: training ends with epoch {self.epochs}")
        if abs(sum(self.split) - 1) > 1e-6 or min(self.split) <= 0:
            raise UserError(
                f"--split {' '.join(map(str, self.split))}: give fractions above 0 that add up to 1"
            )
        if self.fold and not 1 <= self.fold[0] <= self.fold[1] > 1:
            raise UserError(f"--fold {self.fold[0]} {self.fold[1]}: the first must be from 1 to the second")
        if self.dataset == "demo" and self.data_dir:
            raise UserError("--dataset demo draws its own images; leave out --data-dir, or --dataset")
        name = "run" if self.run_name is None else self.run_name
        if name in ("", ".", "..") or set(name) & set("/\\\0") or len(os.fsencode(name)) > 200:
            raise UserError(f"--run-name {name!r}: give a plain folder name")


HEADINGS = {
    "--dataset": "data",
    "--model": "network",
    "--epochs": "training",
    "--seed": "machine",
    "--run-name": "run",
}
MAY_CHANGE_ON_RESUME = ("resume", "data_dir", "device", "num_workers", "cache_images", "trackers", "strict")
MAY_BE_RAISED_ON_RESUME = ("epochs", "patience")


def parse_config(argv: Sequence[str] | None = None, project: Project = project) -> Config:
    """Parse the command line of main.py; with `--resume`, the options of that run are the defaults."""
    config = parse(Config, argv, HEADINGS)
    if config.resume is None:
        return config
    folder = latest_run(project) if config.resume == Path("latest") else config.resume
    saved = replace(load_config(open_run(folder)), resume=folder)
    config = replace(parse(Config, argv, HEADINGS, default=saved), resume=folder)
    check_changes(saved, config)
    return config


def check_changes(saved: Config, config: Config) -> None:
    """Raise a UserError if an option differs from the saved one that would make it another run."""
    for name, before in vars(saved).items():
        now = getattr(config, name)
        changed = f"--{option_name(name)} {now}"
        if now == before or name in MAY_CHANGE_ON_RESUME:
            continue
        if name not in MAY_BE_RAISED_ON_RESUME:
            raise UserError(f"{changed} cannot be changed on resume (the run has {before}); start a new run")
        if now < before:
            raise UserError(f"{changed}: the run has {before}, which can only be raised on resume")
    if config.epochs > saved.epochs and config.lr_schedule not in ("plateau", "constant"):
        raise UserError(
            f"--epochs {config.epochs}: the {config.lr_schedule} schedule was planned for {saved.epochs} epochs; "
            "start a new run"
        )


def load_config(run: Run) -> Config:
    """Return the options of a run; raise a UserError if its config.json cannot be read."""
    options: dict[str, Any] = {}
    try:
        saved = read_json(run.config)["options"]
        for field in fields(Config):
            value = saved.get(field.name, field.default)
            options[field.name] = tuple(value) if isinstance(value, list) else value
        if options["data_dir"]:
            options["data_dir"] = Path(options["data_dir"])
        return Config(**options)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.config} cannot be read ({format_error(error)}); was it changed?") from error


def start_run(config: Config, project: Project, files: Mapping[str, Any]) -> AbstractContextManager[Run]:
    """Return a context with the run folder, which is new or resumed.

    Args:
        config: resolved.
        project: to which a new run belongs.
        files: contents of JSON files that describe the data, by file name.
    """
    if config.resume:
        return open_for_training(Run(config.resume), {"config.json": to_json(config)}, resumed=True)
    name = config.run_name or new_name(project, config.model)
    files = {"config.json": to_json(replace(config, run_name=name)), **files}
    return open_for_training(Run(project.checkpoint_dir / name), files, resumed=False)


def to_json(config: Config) -> dict[str, Any]:
    """Return the content of config.json: options, library versions, git commit if any."""
    options = asdict(config)
    options["data_dir"] = config.data_dir and str(config.data_dir)
    del options["resume"]  # it is this folder
    libraries = versions("torch", "torchvision", "poutyne", "imaug", "numpy", "pillow")
    git = ["git", "-C", str(BASE_DIR), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        "options": options,
        "versions": {"python": sys.version.split()[0], **libraries},
        "git_commit": commit,
    }
