"""Optimizers and learning-rate schedules of torch, by name. A new one is a line."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from config import Config
from core.errors import lookup
from models import Classifier

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


def cosine(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Warm up for a twentieth of the training, then decay to 0 along a cosine (Loshchilov and Hutter, ICLR 2017)."""
    n_warmup = max(1, steps // 20)
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=n_warmup)
    decay = lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - n_warmup))
    return lr_scheduler.SequentialLR(optimizer, [warmup, decay], [n_warmup])


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Rise for three tenths of the training, then decay far below the start (Smith and Topin, arXiv:1708.07120)."""
    lrs = [group["lr"] for group in optimizer.param_groups]
    momentum = "betas" in optimizer.defaults or bool(optimizer.defaults.get("momentum"))
    return lr_scheduler.OneCycleLR(optimizer, max_lr=lrs, total_steps=steps, cycle_momentum=momentum)


def step(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Divide the learning rate by 10 after each third of the training."""
    return lr_scheduler.StepLR(optimizer, step_size=math.ceil(steps / 3), gamma=0.1)


def constant(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Keep the learning rate as it is."""
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)


# Built from the optimizer and the number of batches in the whole training; stepped after each batch.
SCHEDULES: dict[str, Callable[[Optimizer, int], LRScheduler] | None] = {
    "plateau": None,  # Poutyne's ReduceLROnPlateau
    "cosine": cosine,
    "one_cycle": one_cycle,
    "step": step,
    "constant": constant,
}


def default_lr(config: Config, network: Classifier, n_images: int) -> float:
    """Return the initial learning rate for a training set of `n_images`.

    A head on a frozen backbone takes a higher one, but a lower one the more steps an epoch has: with 1,400 of them, the
    loss rises at the learning rate that 200 images need to make progress.
    """
    lr = 1e-3 if config.weights == "none" else 1e-4
    if network.frozen:
        steps = math.ceil(n_images / config.batch_size)
        lr = 3e-3 * min(1.0, 200 / steps)
    if config.optimizer == "sgd":
        lr *= 10
    return float(f"{lr:.2g}")


def make_optimizer(config: Config, network: Classifier) -> Optimizer:
    """Return the optimizer of the trainable parameters; with `--unfreeze-epoch`, of all, in a group for each stage."""
    build = lookup(config.optimizer, OPTIMIZERS, "optimizer")
    settings: dict[str, Any] = {"lr": config.lr}
    if config.weight_decay is not None:
        settings["weight_decay"] = config.weight_decay
    groups: Any = [p for p in network.parameters() if p.requires_grad]
    if config.unfreeze_epoch:
        groups = layerwise_param_groups(network, config.lr)
    optimizer = build(groups, **settings)

    def clip_gradients(*_: Any) -> None:
        clip_grad_norm_(network.parameters(), config.grad_clip_norm)

    if config.grad_clip_norm:  # Poutyne's ClipNorm clips before the gradients of all batches are accumulated
        optimizer.register_step_pre_hook(clip_gradients)
    return optimizer


def layerwise_param_groups(network: Classifier, lr: float) -> list[dict[str, Any]]:
    """Return parameter groups for discriminative fine-tuning: the head, then the stages from the last to the first.

    Each stage has a learning rate 2.6 times smaller than the next (Howard and Ruder, "Universal Language Model
    Fine-tuning for Text Classification", ACL 2018). "unfrozen_lr" is the learning rate of a group once a stage trains:
    larger ones make both the head and the stage forget.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(network.head.parameters()), "lr": lr, "unfrozen_lr": lr / 30}
    ]
    for depth, stage in enumerate(reversed(network.stages())):
        stage_lr = lr / 100 / 2.6**depth
        groups.append({"params": list(stage.parameters()), "lr": stage_lr, "unfrozen_lr": stage_lr})
    grouped = {id(p) for group in groups for p in group["params"]}
    groups[-1]["params"] += [p for p in network.parameters() if id(p) not in grouped]  # such as a class token
    return groups
