"""A table of the network's layers, by torchsummary."""

import copy
import io
import logging
from contextlib import redirect_stdout

import torchsummary
from torch import nn

from core.errors import format_error
from models.classifier import count_parameters

logger = logging.getLogger(__name__)


def summarize(network: nn.Module, image_size: int) -> str:
    """The network's layers with their output shapes and parameters.

    torchsummary runs the network once, prints, and returns nothing. Here it runs a copy, on the CPU and in eval mode,
    so that no BatchNorm statistic moves; it fails on some networks, and then there is no table. It misses parameters
    that are not called weight or bias, so the true count stands below it.

    Args:
        network: takes pictures (N, 3, image_size, image_size).
        image_size: in pixels.

    Returns:
        The table and the count of parameters, a text of several lines.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            torchsummary.summary(copy.deepcopy(network).cpu().eval(), (3, image_size, image_size), device="cpu")
    except Exception as error:  # a table is no reason to stop
        logger.warning("torchsummary cannot draw this network (%s)", format_error(error))
        printed = io.StringIO()
    training = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return f"{printed.getvalue()}{count_parameters(network):,} parameters, of which {training:,} train\n"
