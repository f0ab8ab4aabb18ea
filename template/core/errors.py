"""Errors that are shown as one line, and registries with suggestions."""

import difflib
from collections.abc import Mapping
from typing import Any


class UserError(Exception):
    """Mistake in options or data, in one line: what was found, what was expected, what to type (exit code 2)."""

    def __init__(self, message: str) -> None:
        # A DataLoader raises the error of a worker again with the whole traceback as its message; keep its end only.
        message = message.rpartition("UserError: ")[2]
        super().__init__(" ".join(message.split("\n")).strip())


class RunError(Exception):
    """Failure that no option or data is to blame for, in one line (exit code 1)."""


def format_error(error: Exception) -> str:
    """Return type and message of an error in one line, at most 200 characters of the message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:200]}"


def lookup(name: str, registry: Mapping[str, Any], what: str) -> Any:
    """Return an entry of a registry.

    Args:
        name: key of the entry.
        registry: entries by name.
        what: kind of entry, such as "model".

    Raises:
        UserError: unknown name; suggests the closest one and lists the valid ones.
    """
    if name in registry:
        return registry[name]
    close = difflib.get_close_matches(name, registry, n=1, cutoff=0.4)
    guess = f"did you mean {close[0]!r}? " if close else ""
    names = ", ".join(list(registry)[:20])
    if len(registry) > 20:
        names += f" and {len(registry) - 20} more"
    raise UserError(f"unknown {what} {name!r}; {guess}valid are: {names}")


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out on a GPU, on the CPU or in a worker that the system killed for it."""
    signs = ("out of memory", "can't allocate memory", "is killed by signal: Killed", "Unable to allocate")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)
