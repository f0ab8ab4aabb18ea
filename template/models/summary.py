"""Table of a network's layers."""

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
    """Return torchsummary's table of layers, output shapes and parameters, and the number of parameters.

    torchsummary runs the network once, so it gets a copy. It fails on some networks, and does not count parameters that
    are not called weight or bias.
    """
    table = io.StringIO()
    try:
        with redirect_stdout(table):
            torchsummary.summary(
                copy.deepcopy(network).cpu().eval(), (3, image_size, image_size), device="cpu"
            )
    except Exception as error:
        logger.warning("torchsummary does not support this network (%s)", format_error(error))
        table = io.StringIO()
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return f"{table.getvalue()}{count_parameters(network):,} parameters, {trainable:,} of them trainable\n"
