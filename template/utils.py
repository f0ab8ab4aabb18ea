"""Small things that several files need. Nothing heavy is imported before it is used: `--help` should answer at once."""

import ctypes
import difflib
import errno
import json
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch.utils.data import DataLoader, Dataset
    from tqdm import tqdm

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class UserError(Exception):
    """A mistake that the user can mend: one line that says what was found, what was expected and what to do."""

    def __init__(self, message: str) -> None:
        # An error in a DataLoader's worker arrives wrapped in its traceback, at whose end ours stands.
        super().__init__(" ".join(message.rpartition("UserError: ")[2].split("\n")).strip())


class RunError(Exception):
    """What ends a run although nobody made a mistake in options or data: one line, exit code 1."""


def brief(error: Exception) -> str:
    """What the error says and of what kind it is, in one line of bearable length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def versions(*packages: str) -> dict[str, str | None]:
    """Which ones are installed; None for a package that is not."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


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

    from distributed import rank

    if rank() > 0:
        return tqdm(items, disable=True)
    bar = tqdm(items, what, total, leave=False, dynamic_ncols=True, disable=None)
    if bar.disable:
        line = "{desc}: {n:,} of {total:,} " + unit + ", about {remaining} left{postfix}"
        options = {"bar_format": line, "file": LogStream(), "mininterval": 30, "delay": 30, "miniters": 1}
        bar = tqdm(items, what, total, leave=False, position=0, **options)
    return bar


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
    from distributed import rank, says_it_first, world

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
        elif world() > 1 and any(sign in reason.lower() for sign in ("gloo", "nccl", "peer", "tcpstore")):
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
    if world() > 1:  # torchrun tells the others to end as soon as one does; this one is about to
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if message and says_it_first(message):
        print(message, file=sys.stderr)
    sys.exit(code)


def stop(*_: Any) -> None:
    """Stop the script for SIGTERM as for Ctrl-C, even when the processes that read images were told to end as well."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "SIGCHLD"):  # torch would raise an error at each of them that ends, in the midst of the cleaning
        signal.signal(signal.SIGCHLD, lambda *_: None)
    raise KeyboardInterrupt(signal.SIGTERM)


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on a GPU, on the CPU or in a worker that was killed for it."""
    signs = ("out of memory", "can't allocate memory", "is killed by signal: Killed", "Unable to allocate")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def get_device(name: str) -> "torch.device":
    """The device to train on. Where that is the CPU, memory that is freed stays with the process from now on.

    Args:
        name: "auto" for the accelerator of this machine, else the CPU; or "cpu", "cuda", "cuda:1", "mps", "xpu".

    Raises:
        UserError: no such device, or not on this machine.
    """
    import torch

    from distributed import world

    found = torch.accelerator.current_accelerator(check_available=True)
    if found and world() > 1 and name in ("auto", found.type):  # each process of a machine takes a device of its own
        name = f"{found.type}:{os.environ.get('LOCAL_RANK', 0)}"
    if name == "auto" and found:
        return found
    if name in ("auto", "cpu"):
        keep_freed_memory()
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    lookup(kind, dict.fromkeys(("auto", "cpu", "cuda", "mps", "xpu")), "device")
    here = ["cpu"] + [f"{found.type}:{i}" for i in range(torch.accelerator.device_count())] if found else ["cpu"]
    if f"{kind}:{number or 0}" not in here:
        raise UserError(f"there is no device {name!r} on this machine; available are: {', '.join(here)}")
    return torch.device(name)


def keep_freed_memory() -> None:
    """Tells the C library of Linux not to give freed memory back to the system.

    A network on a CPU takes and frees some hundred megabytes in each layer, and the system clears every page before it
    gives it out again. Kept, they need not be cleared: training a resnet50 at batch 32 took 0.66 of the time, with a
    fifth more memory.
    """
    with suppress(OSError, TypeError, AttributeError):  # other systems have no such function
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no piece of memory, however large, is the system's own
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing is given back


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Within this context whatever is drawn from torch, NumPy or Python depends on `seed` alone.

    torch's generator goes on afterwards as if nothing had been drawn: the network's dropout uses it too.

    Args:
        seed: 0 or more, below 2 ** 63; None for a context in which nothing changes.
    """
    if seed is None:
        yield
        return
    import numpy as np
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that takes the place of `path` at once, when all of it is there.

    A reader, or a run that is killed, meets the old file or the new one, never half of it. What is no plain file, such
    as `/dev/stdout`, is written to as it is.

    Args:
        path: the file to replace or to make.
        mode: "w" for text in UTF-8, "wb" for bytes.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "", "errors": "surrogateescape"}
    if path.exists() and not path.is_file():
        with open(path, mode, **text) as file:
            yield file
        return
    path = path.resolve()  # a link stays one
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with open(unfinished, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_tensors(state: Any, file: IO[bytes]) -> None:
    """Writes what `torch.load(weights_only=True)` reads; a full disk is an OSError, which torch would hide.

    Args:
        state: tensors and plain values, in dicts and lists.
        file: opened to write bytes.
    """
    import torch

    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, at once."""
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: it is missing or is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({brief(error)}); was it changed?") from error


def show_dataset(dataset: "Dataset", n: int = 16, file: str | Path | None = None) -> None:
    """Shows pictures of a data set, drawn at random, each under the name of its class.

    Args:
        dataset: items are (picture, label); a picture is a PIL image or a tensor (C, H, W), uint8 or float.
        n: how many pictures; fewer if there are fewer.
        file: where to draw them. By default in the notebook, or in `show_dataset.png` when called from a script.
    """
    from plots import image_grid

    chosen = random.sample(range(len(dataset)), min(n, len(dataset)))
    images, labels = zip(*(dataset[i] for i in chosen), strict=True)
    show_figure(image_grid(images, class_names(dataset, labels)), file or "show_dataset.png", inline=file is None)


def show_dl(dl: "DataLoader", n: int = 16, file: str | Path | None = None) -> None:
    """Shows pictures of a loader as the network gets them, each under the name of its class.

    From a loader that shuffles, its next batch; from one that does not, pictures from all over it.

    Args:
        dl: a loader of batches (images, labels): images (N, C, H, W), uint8 or float.
        n: how many pictures at most; a loader that shuffles shows no more than one batch.
        file: where to draw them. By default in the notebook, or in `show_dl.png` when called from a script.
    """
    from torch.utils.data import SequentialSampler

    from data.loaders import InOrder
    from plots import image_grid

    if type(dl.sampler) in (SequentialSampler, InOrder):  # file after file the first batch would be all of one class
        size = len(dl.dataset)
        count = min(n, size)
        images, labels = zip(*(dl.dataset[i * size // count] for i in range(count)), strict=True)
    else:
        images, labels = next(iter(dl))
    titles = class_names(dl.dataset, labels[:n])
    show_figure(image_grid(images[:n], titles), file or "show_dl.png", inline=file is None)


def class_names(dataset: "Dataset", labels: Any) -> list[str]:
    """Names of these labels, from the first `classes` found in the data set or in what it wraps.

    Args:
        dataset: or a view of one.
        labels: for each picture a number; or 0 and 1 for each class, and then the names stand beside one another.
    """
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    rows = [label.tolist() if hasattr(label, "tolist") else label for label in labels]
    numbers = [[i for i, there in enumerate(row) if there] if isinstance(row, list) else [int(row)] for row in rows]
    return ["|".join(str(classes[i] if classes else i) for i in row) for row in numbers]


def show_figure(figure: "Figure", file: str | Path, inline: bool = True) -> None:
    """Shows a figure in the notebook if there is one and `inline` is set, else writes it to a file. Never waits."""
    from poutyne.utils import is_in_jupyter_notebook

    if inline and is_in_jupyter_notebook():
        from IPython.display import Image, display

        picture = BytesIO()
        figure.savefig(picture, format="png", bbox_inches="tight")
        display(Image(picture.getvalue()))
    else:
        figure.savefig(file, bbox_inches="tight")
        print(f"drawn: {file}")
