"""What the tests of the template share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from preloaded import Preloaded


@pytest.fixture(scope="session")
def python() -> Iterator[Path]:
    """Return a Python that has imported torch and the like already."""
    with Preloaded() as preloaded:
        yield preloaded.bin / "python"
