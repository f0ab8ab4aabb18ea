"""Protection of the training from trackers that fail."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from core.errors import UserError, format_error

logger = logging.getLogger(__name__)


class SafeTracker:
    """Tracker whose first failure is logged as a warning; after that only its `end` is called."""

    def __init__(self, name: str, start: Callable[..., Any], *args: Any) -> None:
        self.name = name
        self.tracker = None
        self.failed = False
        try:
            self.tracker = start(*args)
        except UserError:
            raise
        except ImportError as error:
            package = (error.name or name).partition(".")[0]
            raise UserError(
                f"{package} is not installed; pip install {package}, or choose other --trackers"
            ) from error
        except Exception as error:
            self.fail(error)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return partial(self.call, method)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.tracker is None or (self.failed and method != "end"):
            return None
        try:
            return getattr(self.tracker, method)(*args, **kwargs)
        except Exception as error:
            return self.fail(error)

    def fail(self, error: Exception) -> None:
        self.failed = True
        logger.warning("%s failed (%s); the run continues without it", self.name, format_error(error))
