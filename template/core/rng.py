"""Random numbers that depend on a seed alone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def isolated_rng(seed: int | None) -> Iterator[None]:
    """Within this context whatever is drawn from torch, NumPy or Python depends on `seed` alone.

    torch's generator goes on afterwards as if nothing had been drawn: the network's dropout uses it too.

    Args:
        seed: 0 or more, below 2 ** 63; None for a context in which nothing changes.
    """
    if seed is None:
        yield
        return
    import numpy as np
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
