"""Progress bars, or log lines where there is no terminal."""

import logging
import sys
from collections.abc import Iterable

from tqdm.auto import tqdm

from core.environment import rank

logger = logging.getLogger(__name__)


class LogStream:
    """Stream for a tqdm bar that logs each drawing of the bar as a line."""

    def write(self, text: str) -> None:
        if line := text.strip():  # the rest moves the cursor
            logger.info("%s", line)


def progress_bar(
    what: str, items: Iterable | None = None, total: int | None = None, unit: str = "images"
) -> tqdm:
    """Return a progress bar on a terminal, else one that logs a line every 30 s; rank 0 alone shows it."""
    if rank() > 0 or sys.stderr.isatty():
        return tqdm(items, what, total, leave=False, dynamic_ncols=True, disable=rank() > 0)
    line = "{desc}: {n:,} of {total:,} " + unit + ", about {remaining} left{postfix}"
    options = {"bar_format": line, "file": LogStream(), "mininterval": 30, "delay": 30, "miniters": 1}
    return tqdm(items, what, total, leave=False, position=0, **options)
