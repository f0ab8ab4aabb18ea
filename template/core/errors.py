"""Errors that are one line for the user, and looking names up."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

Item = TypeVar("Item")


class UserError(Exception):
    """A mistake that the user can mend: one line that says what was found, what was expected and what to do."""

    def __init__(self, message: str) -> None:
        # An error in a DataLoader's worker arrives wrapped in its traceback, at whose end ours stands.
        super().__init__(" ".join(message.rpartition("UserError: ")[2].split("\n")).strip())


class RunError(Exception):
    """What ends a run although nobody made a mistake in options or data: one line, exit code 1."""


def format_error(error: Exception) -> str:
    """What the error says and of what kind it is, in one line of bearable length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def lookup(name: str, registry: Mapping[str, Item], what: str) -> Item:
    """Finds a name in a dictionary.

    Args:
        name: what the user typed.
        registry: the valid names and what they stand for.
        what: the kind of thing, for the message: "model", "data set".

    Raises:
        UserError: there is no such name; offers the closest one and lists the first of them.
    """
    if name in registry:
        return registry[name]
    close = difflib.get_close_matches(name, registry, n=1, cutoff=0.4)
    guess = f"did you mean {close[0]!r}? " if close else ""
    names = ", ".join(list(registry)[:20]) + (f" and {len(registry) - 20} more" if len(registry) > 20 else "")
    raise UserError(f"unknown {what} {name!r}; {guess}valid are: {names}")


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on a GPU, on the CPU or in a worker that was killed for it."""
    signs = ("out of memory", "can't allocate memory", "is killed by signal: Killed", "Unable to allocate")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)
