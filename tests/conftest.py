"""What the tests of the template share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from preloaded import Preloaded

# Two tests run at a time, and torch would take all cores for each.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def python() -> Iterator[Path]:
    """Return a Python that has imported torch and the like already."""
    with Preloaded() as preloaded:
        yield preloaded.bin / "python"
