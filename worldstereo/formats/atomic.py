"""Files that appear whole or not at all: temporary name, flush to disk, rename.

Owns the temporary names and the flushing. Nothing here knows what is written.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

# Of ``temporary_sibling``; narrow, since what looks like this is removed.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary sibling, flush, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    atomic_write_bytes(path, text.encode())


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left behind anywhere under ``folder``.

    Only when no other process writes there.
    """
    for path in sorted(folder.rglob(".*.tmp")):
        if not _TEMPORARY.fullmatch(path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()


def is_temporary(path: Path) -> bool:
    """Whether a path is, or lies in, something that is still being written."""
    return any(_TEMPORARY.fullmatch(part) for part in path.parts)


def temporary_sibling(path: Path) -> Path:
    """A new hidden name beside ``path``, for what will be renamed to it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def flush(path: Path) -> None:
    """Have the system write a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """``flush`` for everything under a folder, and the folder itself."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)
