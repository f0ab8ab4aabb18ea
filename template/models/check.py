"""Whether pictures and network fit together."""

import copy
from typing import Any

import torch
from torch.utils.data import DataLoader

from utils import UserError


def check_batch(network: torch.nn.Module, loader: DataLoader) -> None:
    """Sends one batch through the network, so that what does not fit is known before the training starts.

    Args:
        network: stays as it is.
        loader: its classes give the number of outputs expected.

    Raises:
        UserError: the pictures do not fit together or into the network; says the shapes.
    """
    images: Any = None
    try:
        images, _ = next(iter(loader))
        with torch.no_grad():
            logits = copy.deepcopy(network).cpu().eval()(images)
    except RuntimeError as error:
        if images is None and "stack" not in str(error):
            raise
        found = "pictures of different sizes" if images is None else f"a batch of shape {tuple(images.shape)}"
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{found} does not go through the network ({reason}); try another --image-size") from error
    expected = (len(images), len(loader.dataset.classes))
    if tuple(logits.shape) != expected:
        raise UserError(f"the network returns {tuple(logits.shape)} for {len(images)} pictures; expected is {expected}")
