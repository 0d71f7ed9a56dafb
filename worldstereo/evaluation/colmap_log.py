"""pycolmap without its log: it writes a line a feature extractor to standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def silent_pycolmap() -> Iterator[Any]:
    """The module pycolmap, which logs nothing until the end of the block.

    What fails there is told by what it returns.
    """
    import pycolmap

    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield pycolmap
    finally:
        pycolmap.logging.minloglevel = before
