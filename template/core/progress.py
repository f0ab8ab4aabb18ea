"""Progress bars, and log lines where there is no terminal."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

from core.processes import rank

logger = logging.getLogger(__name__)
Item = TypeVar("Item")


class LogStream:
    """Stream that logs what a tqdm bar draws on it, as a plain line each time."""

    def write(self, text: str) -> None:
        """Log the text; what only moves the cursor is dropped."""
        if line := text.strip():
            logger.info("%s", line)


def progress_bar(
    what: str, items: Iterable[Item] | None = None, total: int | None = None, unit: str = "images"
) -> "tqdm[Item]":
    """Return a progress bar; where there is no terminal, one that logs a line every 30 s instead.

    Args:
        what: is being done.
        items: to iterate over; without them, call the bar's `update`.
        total: how many there are; default: the length of `items`.
        unit: what is counted, in the log.
    """
    from tqdm.auto import tqdm

    if rank() > 0:
        return tqdm(items, disable=True)
    bar = tqdm(items, what, total, leave=False, dynamic_ncols=True, disable=None)
    if bar.disable:
        line = "{desc}: {n:,} of {total:,} " + unit + ", about {remaining} left{postfix}"
        options = {"bar_format": line, "file": LogStream(), "mininterval": 30, "delay": 30, "miniters": 1}
        bar = tqdm(items, what, total, leave=False, position=0, **options)
    return bar
