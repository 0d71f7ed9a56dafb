"""A scene's files as one zip that is written while it is sent.

Owns the form of the zip. Nothing is compressed, since videos and PNGs are already, and nothing is
kept: neither a temporary file nor more of any file than one piece.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

# Of a file that is read at once, bytes.
_PIECE = 1 << 20


def stream_zip(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """A zip of these files, piece by piece.

    Args:
        files: for each, its name in the zip and where it is.

    Yields:
        Its bytes in order.

    Raises:
        OSError: a file went away meanwhile; what was yielded is no whole zip.
    """
    outlet = _Outlet()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            entry = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while piece := source.read(_PIECE):
                    target.write(piece)
                    yield outlet.take()
            yield outlet.take()
    yield outlet.take()


class _Outlet:
    """What ``zipfile`` writes to: a file that cannot seek, emptied by ``take``."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits in here but what ``take`` gives."""

    def close(self) -> None:
        """Nothing is open."""

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
