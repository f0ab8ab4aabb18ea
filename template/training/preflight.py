"""Checks before a run exists: names of options, abilities of the device, shapes of images and network."""

import copy
import shutil
from collections.abc import Collection

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
    """Check names and abilities of the device before any data is read; raise a UserError."""
    for name in config.trackers:
        lookup(name, dict.fromkeys([*trackers, "none", "csv"]), "tracker")
    for name in config.metrics:
        lookup(name, METRICS, "metric")
    lookup(config.optimizer, OPTIMIZERS, "optimizer")
    lookup(config.lr_schedule, SCHEDULES, "schedule")
    lookup(config.resize, RESIZES, "resize")
    if config.loss:
        lookup(config.loss, LOSSES, "loss")
    if config.augmentation:
        lookup(config.augmentation, AUGMENTATIONS, "augmentation")
    if config.compile and device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "cl"))):
        raise UserError("--compile needs a C++ compiler on a CPU: apt install g++, or leave it out")
    use_bf16(config.bf16, False, device)


def preflight(config: Config, data: DatasetSplits, network: Classifier, loaders: DataLoaders) -> None:
    """Check that labels, loss, images and network fit together; raise a UserError."""
    check_loss(config.loss, data.task)
    batch_size = loaders.train.batch_size
    last_batch = len(loaders.train.sampler) % batch_size or batch_size
    check_batch(network, loaders.val, last_batch)


def check_batch(network: torch.nn.Module, loader: DataLoader, smallest: int = 2) -> None:
    """Train a copy of the network on the CPU with a batch of two images, or one if the `smallest` batch has only one.

    BatchNorm cannot train on a single value. The UserError names the shapes.
    """
    images = next(iter(loader))[0]
    images = images[torch.arange(min(smallest, 2)) % len(images)]  # the loader may have a single image
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = copy.deepcopy(network).cpu().train()(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        if out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"a batch of shape {tuple(images.shape)} does not go through the network ({reason}); try another "
            "--image-size or --batch-size"
        ) from error
    expected = (len(images), len(loader.dataset.classes))
    if tuple(logits.shape) != expected:
        raise UserError(
            f"the network returns {tuple(logits.shape)} for {len(images)} images; expected is {expected}"
        )
