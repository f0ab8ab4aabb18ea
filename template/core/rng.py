"""Random numbers that depend on a seed alone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def isolated_rng(seed: int | None) -> Iterator[None]:
    """Seed torch, NumPy and Python for this context; afterwards torch continues as if nothing had been drawn.

    Args:
        seed: from 0 to 2 ** 63 - 1; None changes nothing.
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
