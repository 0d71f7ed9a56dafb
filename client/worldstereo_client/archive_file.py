"""A scene's zip on its way to disk: whole and verified before it gets its name."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from worldstereo_client import calls
from worldstereo_client.errors import IntegrityError

if TYPE_CHECKING:
    from worldstereo_client.client import AsyncClient, Client


class ArchiveFile:
    """The file that ``GET /v1/scenes/{id}/archive`` becomes.

    Args:
        path: the zip; its folder is made when needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")

    @contextmanager
    def receiving(self) -> Iterator[Callable[[bytes], object]]:
        """Start the file anew; yields the function that takes its bytes in order."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._partial.open("wb") as file:
            yield file.write

    def finish(self) -> Path:
        """Verify every file's checksum and move the zip into place.

        Raises:
            IntegrityError: it is cut or damaged; it is removed.
        """
        try:
            with zipfile.ZipFile(self._partial) as archive:
                damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            raise self._damaged(str(error)) from error
        if damaged is not None:
            raise self._damaged(f"wrong bytes in {damaged}")
        return self._partial.replace(self._path)

    def _damaged(self, got: str) -> IntegrityError:
        self._partial.unlink(missing_ok=True)
        return IntegrityError(
            "the received archive is damaged",
            where=str(self._path),
            got=got,
            fix="fetch it again, or file by file",
        )


def fetch_archive(client: Client, scene_id: str, path: Path) -> Path:
    """Fetch a scene's files as one zip; a lost connection starts it anew.

    Raises:
        IntegrityError: it came damaged twice.
    """
    call, target = calls.scene_archive(scene_id), ArchiveFile(path)

    def once() -> Path:
        with client.open(call) as response, target.receiving() as write:
            for chunk in response.iter_bytes():
                write(chunk)
        return target.finish()

    return client.repeat(once, client.attempts(call))


async def fetch_archive_async(client: AsyncClient, scene_id: str, path: Path) -> Path:
    """The same for asyncio."""
    call, target = calls.scene_archive(scene_id), ArchiveFile(path)

    async def once() -> Path:
        async with client.open(call) as response:
            with target.receiving() as write:
                async for chunk in response.aiter_bytes():
                    write(chunk)
        return await asyncio.to_thread(target.finish)

    return await client.repeat(once, client.attempts(call))
