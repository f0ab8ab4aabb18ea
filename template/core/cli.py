"""Command line of the scripts: options, their ranges, error messages and exit codes."""

import errno
import io
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from core.environment import rank, world_size
from core.errors import RunError, UserError, out_of_memory

# Message of a stopped script that finds most of its work in caches when it is run again.
STOPPED = "stopped; to continue, type the same command again: checked images and computed features are cached"

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOTDIR)


def check_file(name: str, path: Path | None) -> None:
    """Raise a UserError if the file of an option cannot be written."""
    if path and (path.is_dir() or not path.resolve().parent.is_dir()):
        raise UserError(f"--{name} {path}: give the name of a file, in a folder that exists")


def option_name(name: str) -> str:
    """Return the option of a field, without its dashes."""
    return name.replace("_", "-")


def parse(
    options: type, argv: Sequence[str] | None = None, headings: Mapping[str, str] = {}, **settings: Any
) -> Any:
    """Parse a command line with tyro; the help texts are the docstrings of the fields.

    Args:
        options: dataclass.
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
        # the help texts name these defaults
        text = re.sub(r"\s*\(default:\s+None\) *", "", printed.getvalue())
        for first, heading in headings.items():
            text = text.replace(f"\n  {first} ", f"\n\n {heading}\n  {first} ")
        print(text, end="")


def run_script(
    main: Callable[[Any], object],
    parse: Callable[[], Any],
    stopped: str = "stopped",
    log: TextIO | None = None,
) -> None:
    """Run a script, and exit: 1 failed, 2 user error, 130 SIGINT, 143 SIGTERM, 141 broken pipe.

    Args:
        main: called with the options that `parse` returns.
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
    except BrokenPipeError:  # `python predict.py … | head`; Python still flushes stdout at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt as error:
        code = 128 + (signal.SIGTERM if signal.SIGTERM in error.args else signal.SIGINT)
        if rank() > 0:
            sys.exit(code)
        exit_with(code, getattr(error, "__notes__", [stopped])[-1])
    except Exception as error:
        message = describe_failure(error)
        if not message:
            raise
        exit_with(2 if isinstance(error, UserError) else 1, message)


def describe_failure(error: Exception) -> str | None:
    """Return an error in one line, None if it needs its traceback."""
    reason = str(error).partition("\n")[0]
    if isinstance(error, (UserError, RunError)):
        return f"error: {error}"
    if out_of_memory(error):
        return f"error: out of memory; lower --batch-size or --image-size ({reason})"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return f"error: {error}; make room or change permissions; a run continues with --resume"
    if world_size() > 1 and re.search("gloo|nccl|peer|tcpstore", reason, re.IGNORECASE):
        return "error: another process has ended, so this one ends too"
    return None


def exit_with(code: int, message: str) -> None:
    """Print a message and exit; under torchrun, rank 0 alone prints, if it fails as well."""
    if rank() > 0:  # when rank 0 exits, torchrun ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(5)
    elif world_size() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(message, file=sys.stderr)
    sys.exit(code)


def stop(*_: Any) -> None:
    """Handle SIGTERM like Ctrl-C, by a KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # workers were terminated too, and torch would raise an error for each of them
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    raise KeyboardInterrupt(signal.SIGTERM)
