"""Files that are written at once: a reader, or a run that is killed, meets the old one or the new one."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from core.errors import UserError, format_error


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
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
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: it is missing or is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({format_error(error)}); was it changed?") from error


def digest(*parts: Any) -> bytes:
    """16 bytes that stand for all of these."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode(errors="surrogateescape")
        found.update(len(content).to_bytes(8, "little") + content)
    return found.digest()
