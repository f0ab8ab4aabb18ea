"""Atomic files and JSON: after a kill, a file is either the old one or the new one."""

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
    """Open a temporary file that replaces `path` when it is complete; write to a device such as /dev/stdout directly.

    The mode is "w" for text in UTF-8 or "wb" for bytes.
    """
    text: dict[str, Any] = (
        {} if "b" in mode else {"encoding": "utf-8", "newline": "", "errors": "surrogateescape"}
    )
    if path.exists() and not path.is_file():
        with open(path, mode, **text) as file:
            yield file
        return
    path = path.resolve()  # a symbolic link stays one
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut could leave an empty file under the new name
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(state: Any, file: IO[bytes]) -> None:
    """Save tensors and plain values in dicts and lists; raise the OSError of a full disk, which torch hides."""
    import torch

    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise a UserError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({format_error(error)}); was it changed?") from error


def digest(*parts: Any) -> bytes:
    """Return a hash of 16 bytes of some values, each taken as bytes or by its text."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode(errors="surrogateescape")
        hashed.update(len(content).to_bytes(8, "little") + content)
    return hashed.digest()
