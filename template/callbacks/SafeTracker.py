"""A tracker that fails costs a warning, not the run."""

import logging
from collections.abc import Callable
from typing import Any

from core.errors import UserError, format_error

logger = logging.getLogger(__name__)

PACKAGES = {"dotenv": "python-dotenv"}  # where it has another name than what is imported


class SafeTracker:
    """Passes every call on to a tracker until one fails; after that only `end` is still tried."""

    def __init__(self, name: str, start: Callable[[], Any]) -> None:
        """Starts the tracker.

        Args:
            name: for the warning.
            start: returns the tracker.

        Raises:
            UserError: what it needs is not installed, or its own; any other failure is a warning.
        """
        self.name, self.tracker, self.failed = name, None, False
        try:
            self.tracker = start()
        except UserError:
            raise
        except ImportError as error:
            package = (error.name or name).partition(".")[0]
            install = f"pip install {PACKAGES.get(package, package)}"
            raise UserError(f"{package} is not installed; {install}, or choose other --trackers") from error
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Says so once."""
        self.failed = True
        logger.warning("%s failed (%s); going on without it", self.name, format_error(error))

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """The tracker's method, which cannot raise an error here."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.tracker is None or (self.failed and method != "end"):
                return None
            try:
                return getattr(self.tracker, method)(*args, **kwargs)
            except Exception as error:
                return self.fail(error)

        return call
