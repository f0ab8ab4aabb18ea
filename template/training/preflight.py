"""Checks before a run exists: names of options, what the device can do, whether images and network fit together."""

import copy
import shutil
from collections.abc import Collection
from typing import Any

import torch
from torch.utils.data import DataLoader

from config import Config
from core.environment import use_bf16
from core.errors import UserError, lookup, out_of_memory
from data import DataLoaders, DatasetSplits
from data.transformation import AUGMENTATIONS, RESIZES
from losses import LOSSES, check_loss
from metrics import METRICS
from models import Classifier
from training.optimizers import OPTIMIZERS, SCHEDULES


def check_options(config: Config, device: torch.device, trackers: Collection[str]) -> None:
    """Refuse names that do not exist and what this device cannot do, before any data is read.

    Args:
        config: as typed.
        device: that will train.
        trackers: the valid ones; `none` and `csv` stand for no tracker, since log.csv is written in any case.

    Raises:
        UserError: says what is valid.
    """
    for name in config.trackers:
        lookup(name, dict.fromkeys([*trackers, "none", "csv"]), "tracker")
    for name in config.metrics:
        lookup(name, METRICS, "metric")
    for name, registry, what in (
        (config.loss, LOSSES, "loss"),
        (config.augmentation, AUGMENTATIONS, "augmentation"),
        (config.resize, RESIZES, "resize"),
        (config.optimizer, OPTIMIZERS, "optimizer"),
        (config.lr_schedule, SCHEDULES, "schedule"),
    ):
        if name is not None:
            lookup(name, registry, what)
    if config.compile and device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "cl"))):
        raise UserError("--compile needs a C++ compiler on a CPU: apt install g++, or leave it out")
    use_bf16(config.bf16, False, device)


def preflight(config: Config, data: DatasetSplits, network: Classifier, loaders: DataLoaders) -> None:
    """Refuse what cannot be trained, before a run exists.

    Args:
        config: resolved.
        data: its labels.
        network: that will train.
        loaders: of training and validation.

    Raises:
        UserError: the loss is not made for such labels, or images, batches and network do not fit together.
    """
    check_loss(config.loss, data.task)
    batch_size = loaders.train.batch_size
    check_batch(network, loaders.val, smallest=len(loaders.train.sampler) % batch_size or batch_size)


def check_batch(network: torch.nn.Module, loader: DataLoader, smallest: int = 2) -> None:
    """Sends two pictures through the network, so that what does not fit is known before the training starts.

    Args:
        network: stays as it is; a copy is tried on the CPU.
        loader: its classes give the number of outputs expected.
        smallest: pictures in the smallest batch of the training: BatchNorm cannot train on a single value.

    Raises:
        UserError: the pictures do not fit together or into the network; says the shapes.
    """
    images: Any = None
    try:
        images, _ = next(iter(loader))
        tried = images = images[:2]
        trial = copy.deepcopy(network).cpu()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = trial.eval()(images)
            tried = images[torch.arange(min(smallest, 2)) % len(images)]  # as many, even where val is smaller
            trial.train()(tried)
    except (RuntimeError, ValueError, AssertionError) as error:
        if out_of_memory(error) or (images is None and "stack" not in str(error)):
            raise
        found = "pictures of different sizes" if images is None else f"a batch of shape {tuple(tried.shape)}"
        reason = str(error).strip().splitlines()[-1]
        advice = "try another --image-size or --batch-size"
        raise UserError(f"{found} does not go through the network ({reason}); {advice}") from error
    expected = (len(images), len(loader.dataset.classes))
    if tuple(logits.shape) != expected:
        raise UserError(f"the network returns {tuple(logits.shape)} for {len(images)} pictures; expected is {expected}")
