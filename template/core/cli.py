"""Scripts: reading their options, and turning what happens into an exit code."""

import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from core.errors import RunError, UserError, out_of_memory
from core.processes import is_first_to_report, rank, world_size

# What a script prints that was stopped, where starting again finds most of its work done.
STOPPED = "stopped; to continue, type the same command again: checked images and computed features are cached"


def parse(
    options: type, argv: Sequence[str] | None = None, headings: Mapping[str, str] | None = None, **settings: Any
) -> Any:
    """Read a command line into a dataclass of options, with `tyro`: the docstrings of its fields are the help.

    Args:
        options: the dataclass.
        argv: the arguments; default: those of the process.
        headings: lines of the help, by the option that they stand above.
        settings: what tyro.cli takes besides.
    """
    import tyro

    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            return tyro.cli(options, args=argv, config=(tyro.conf.DisallowNone,), **settings)
    finally:
        for line in printed.getvalue().splitlines():
            heading = (headings or {}).get(line.strip().partition(" ")[0])
            print(f"\n {heading}\n{line}" if heading else line)


def check_at_least(least: int, options: Any, *names: str) -> None:
    """Refuses options that are given and too small.

    Raises:
        UserError: names the first one.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not least <= value < float("inf"):
            raise UserError(f"--{option_name(name)} {value}: at least {least} is needed")


def check_file(name: str, path: Path | None) -> None:
    """Refuses a file that cannot be written, before any work is done.

    Raises:
        UserError: it is a folder, or would be in none.
    """
    if path and (path.is_dir() or not path.resolve().parent.is_dir()):
        raise UserError(f"--{name} {path}: give the name of a file, in a folder that exists")


def option_name(name: str) -> str:
    """The option's name as it is typed."""
    return name.replace("_", "-")


def run_script(
    main: Callable[[Any], object],
    parse: Callable[[], Any],
    stopped: str = "stopped",
    log: TextIO | None = None,
) -> None:
    """Runs a script and turns what happens into its exit code.

    0 done, 1 failed, 2 a mistake in arguments or data (one line on stderr), 130 and 143 stopped by SIGINT and SIGTERM,
    141 nobody reads what it prints any more.

    Args:
        main: does the work.
        parse: reads the command line into the options that `main` takes.
        stopped: what to print after SIGINT or SIGTERM, unless the exception has a note that says it.
        log: where log lines go; default: stdout.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files in letters that the terminal lacks
    if rank() > 0:  # one process prints
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        os.environ["TQDM_DISABLE"] = "1"
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=log or sys.stdout)
    signal.signal(signal.SIGTERM, stop)
    try:
        main(parse())
    except UserError as error:
        code, message = 2, f"error: {error}"
    except RunError as error:
        code, message = 1, f"error: {error}"
    except KeyboardInterrupt as error:
        code = 128 + (signal.SIGTERM if signal.SIGTERM in error.args else signal.SIGINT)
        message = getattr(error, "__notes__", [stopped])[-1] if rank() == 0 else ""
    except (RuntimeError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        if out_of_memory(error):
            code, message = 1, f"error: out of memory; lower --batch-size or --image-size ({reason})"
        elif world_size() > 1 and any(sign in reason.lower() for sign in ("gloo", "nccl", "peer", "tcpstore")):
            code, message = 1, "error: another process has ended, and so this one does"
        else:
            raise
    except BrokenPipeError:  # `python predict.py … | head`; what Python still wants to print must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:  # a full disk, no permission, a file where a folder should be
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full and error.errno not in (errno.EACCES, errno.EROFS, errno.ENOTDIR):
            raise
        code, message = 1, f"error: {error}{'; make room, and go on with --resume' if full else ''}"
    else:
        return
    if world_size() > 1:  # torchrun tells the others to end as soon as one does; this one is about to
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if message and is_first_to_report(message):
        print(message, file=sys.stderr)
    sys.exit(code)


def stop(*_: Any) -> None:
    """Stop the script for SIGTERM as for Ctrl-C, even when the processes that read images were told to end as well."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "SIGCHLD"):  # torch would raise an error at each of them that ends, in the midst of the cleaning
        signal.signal(signal.SIGCHLD, lambda *_: None)
    raise KeyboardInterrupt(signal.SIGTERM)
