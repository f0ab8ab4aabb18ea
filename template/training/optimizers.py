"""Optimizers and learning-rate schedules by name; both are torch's own. A new one is a line."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from config import Config
from core.errors import lookup
from models import Classifier

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """A twentieth of the training to warm up, then down to nothing along a cosine (Loshchilov, Hutter, ICLR 2017)."""
    warm = max(1, steps // 20)
    rise = LinearLR(optimizer, start_factor=0.01, total_iters=warm)
    return SequentialLR(optimizer, [rise, CosineAnnealingLR(optimizer, max(1, steps - warm))], [warm])


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Up for three tenths of the training, then down far below the start (Smith and Topin, arXiv:1708.07120)."""
    rates = [group["lr"] for group in optimizer.param_groups]
    momentum = "betas" in optimizer.defaults or bool(optimizer.defaults.get("momentum"))
    return OneCycleLR(optimizer, max_lr=rates, total_steps=steps, cycle_momentum=momentum)


def step(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """A tenth of the rate after each third of the training."""
    return StepLR(optimizer, step_size=math.ceil(steps / 3), gamma=0.1)


def constant(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Always the same rate."""
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


# Each takes the optimizer and the number of batches in the whole training, and is asked for a new rate after each.
SCHEDULES: dict[str, Callable[[torch.optim.Optimizer, int], LRScheduler] | None] = {
    "plateau": None,  # Poutyne's callback: cut when nothing improves
    "cosine": cosine,
    "one_cycle": one_cycle,
    "step": step,
    "constant": constant,
}


HEAD_LR, HEAD_STEPS = 3e-3, 200  # for the head alone, up to so many steps an epoch
FINE_TUNING_LR, SCRATCH_LR = 1e-4, 1e-3
# Once a stage begins to train, shares of the learning rate that the head alone had: at more, both forget.
HEAD_SHARE, STAGE_SHARE = 1 / 30, 1 / 100


def default_lr(config: Config, network: Classifier, n_images: int) -> float:
    """Return the learning rate at the start, where none is given.

    Args:
        config: batch_size, optimizer, weights.
        network: the head of a frozen one takes a higher learning rate, but less where an epoch has many steps: with
            1,400 of them the loss rises at the learning rate that 200 images need to get anywhere.
        n_images: in the training set.
    """
    steps = math.ceil(n_images / config.batch_size)
    if network.frozen:
        lr = HEAD_LR * min(1.0, HEAD_STEPS / steps)
    else:
        lr = SCRATCH_LR if config.weights == "none" else FINE_TUNING_LR
    return float(f"{10 * lr if config.optimizer == 'sgd' else lr:.2g}")


def make_optimizer(config: Config, network: Classifier) -> torch.optim.Optimizer:
    """The optimizer that the options ask for, over what trains now or will be unfrozen later.

    With `--unfreeze-epoch` every stage gets a group from the start. With `--grad-clip-norm` the gradients are cut back
    right before each step.

    Raises:
        UserError: there is no such optimizer.
    """
    build = lookup(config.optimizer, OPTIMIZERS, "optimizer")
    settings: dict[str, Any] = {} if config.weight_decay is None else {"weight_decay": config.weight_decay}
    groups = [{"params": [p for p in network.parameters() if p.requires_grad]}]
    if config.unfreeze_epoch is not None:
        groups = layerwise_param_groups(network, config.lr)
    optimizer = build(groups, lr=config.lr, **settings)
    if config.grad_clip_norm:  # Poutyne's ClipNorm comes too early where gradients of several batches are added up
        parameters = [p for group in groups for p in group["params"]]

        def clip(*_: Any) -> None:
            torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip_norm)

        optimizer.register_step_pre_hook(clip)
    return optimizer


def layerwise_param_groups(network: Classifier, lr: float) -> list[dict[str, Any]]:
    """Return a parameter group for the head and one for each stage of the backbone, from the head to the image.

    Each stage has a learning rate 2.6 times smaller than the one behind it: "discriminative fine-tuning" (Howard and
    Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018).

    Args:
        network: of any number of stages.
        lr: the learning rate of the head alone.

    Returns:
        The groups. Their "unfrozen_lr" is the learning rate as soon as a stage begins to train.
    """
    parts = [list(network.head.parameters())]
    parts += [[p for module in stage for p in module.parameters()] for stage in reversed(network.stages())]
    staged = {id(p) for part in parts for p in part}
    parts[-1] += [p for p in network.parameters() if id(p) not in staged]
    groups = [{"params": parts[0], "lr": lr, "unfrozen_lr": lr * HEAD_SHARE}]
    for depth, part in enumerate(parts[1:]):
        rate = lr * STAGE_SHARE / 2.6**depth
        groups.append({"params": part, "lr": rate, "unfrozen_lr": rate})
    return groups
