"""Command line of the scripts: options, their ranges, error messages and exit codes."""

import errno
import io
import logging
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, TextIO, get_args, get_type_hints

from core.environment import rank, world_size
from core.errors import RunError, UserError, out_of_memory

# Message of a stopped script that finds most of its work in caches when it is run again.
STOPPED = "stopped; to continue, type the same command again: checked images and computed features are cached"


@dataclass(frozen=True)
class Range:
    """Range of an option, as in `Annotated[int, Range(at_least=1)]`; NaN and infinity are in none."""

    at_least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.at_least <= value < self.below and self.above < value < math.inf

    def __str__(self) -> str:
        limits = [f"{name} {limit}" for name, limit in asdict(self).items() if math.isfinite(limit)]
        return " and ".join(limits).replace("_", " ")


Seed = Annotated[int, Range(at_least=0, below=2**32)]
PositiveInt = Annotated[int, Range(at_least=1)]
NonNegativeInt = Annotated[int, Range(at_least=0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(at_least=0)]
Fraction = Annotated[float, Range(above=0, below=1)]


def check_ranges(options: Any) -> None:
    """Raise a UserError if an option is outside the `Range` that the dataclass annotates it with."""
    for name, annotation in get_type_hints(type(options), include_extras=True).items():
        for part in annotation, *get_args(annotation):  # such as PositiveInt | None
            for allowed in getattr(part, "__metadata__", ()):
                check_range(name, getattr(options, name), allowed)


def check_at_least(least: int, options: Any, *names: str) -> None:
    """Raise a UserError if an option is too small; not needed for annotated ones, see `check_ranges`."""
    for name in names:
        check_range(name, getattr(options, name), Range(at_least=least))


def check_range(name: str, value: Any, allowed: Range) -> None:
    """Raise a UserError if a number is outside a range."""
    if isinstance(value, (int, float)) and value not in allowed:
        raise UserError(f"--{option_name(name)} {value}: must be {allowed}")


def check_file(name: str, path: Path | None) -> None:
    """Raise a UserError if the file of an option cannot be written."""
    if path and (path.is_dir() or not path.resolve().parent.is_dir()):
        raise UserError(f"--{name} {path}: give the name of a file, in a folder that exists")


def option_name(name: str) -> str:
    """Return the option of a field, without its dashes."""
    return name.replace("_", "-")


def parse(
    options: type, argv: Sequence[str] | None = None, headings: Mapping[str, str] | None = None, **settings: Any
) -> Any:
    """Parse a command line with tyro.

    Args:
        options: dataclass; the docstrings of its fields are the help texts.
        argv: arguments (default: those of the process).
        headings: titles of groups in the help, by the first option of each.
        settings: for tyro.cli.
    """
    import tyro

    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            return tyro.cli(options, args=argv, config=(tyro.conf.DisallowNone,), **settings)
    finally:
        text = re.sub(r"\s*\(default:\s+None\) *", "", printed.getvalue())  # the help texts name these defaults
        for option, heading in (headings or {}).items():
            text = text.replace(f"\n  {option} ", f"\n\n {heading}\n  {option} ")
        print(text, end="")


def run_script(
    main: Callable[[Any], object],
    parse: Callable[[], Any],
    stopped: str = "stopped",
    log: TextIO | None = None,
) -> None:
    """Run a script, and exit with its code.

    0 done, 1 failed, 2 mistake in options or data (one line on stderr), 130 and 143 stopped by SIGINT and SIGTERM, 141
    the reader of a pipe has gone.

    Args:
        main: the script.
        parse: returns the options for `main`.
        stopped: message after SIGINT or SIGTERM, unless the exception has a note.
        log: for log lines (default: stdout).
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that the terminal cannot show
    if rank() > 0:  # one process prints
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        os.environ["TQDM_DISABLE"] = "1"
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=log or sys.stdout)
    signal.signal(signal.SIGTERM, stop)
    try:
        main(parse())
        return
    except BrokenPipeError:  # `python predict.py … | head`; Python still flushes stdout at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt as error:
        code = 128 + (signal.SIGTERM if signal.SIGTERM in error.args else signal.SIGINT)
        message = getattr(error, "__notes__", [stopped])[-1] if rank() == 0 else ""
    except Exception as error:
        code, message = describe_failure(error)
        if not message:
            raise
    if rank() > 0 and message:  # rank 0 prints the same and exits, upon which torchrun ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(5)
    elif world_size() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if message:
        print(message, file=sys.stderr)
    sys.exit(code)


def describe_failure(error: Exception) -> tuple[int, str]:
    """Return exit code and message for an error; no message for one that needs its traceback."""
    reason = str(error).partition("\n")[0]
    if isinstance(error, (UserError, RunError)):
        return 2 if isinstance(error, UserError) else 1, f"error: {error}"
    if out_of_memory(error):
        return 1, f"error: out of memory; lower --batch-size or --image-size ({reason})"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return 1, f"error: {error}; make room, then continue with --resume"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR):
        return 1, f"error: {error}"
    if world_size() > 1 and any(sign in reason.lower() for sign in ("gloo", "nccl", "peer", "tcpstore")):
        return 1, "error: another process has ended, so this one ends too"
    return 1, ""


def stop(*_: Any) -> None:
    """Handle SIGTERM like Ctrl-C, by a KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "SIGCHLD"):  # workers were terminated too, and torch would raise an error for each of them
        signal.signal(signal.SIGCHLD, lambda *_: None)
    raise KeyboardInterrupt(signal.SIGTERM)
