"""One artefact on its way to disk: resumed, verified, then moved into place.

Owns paths, partial files and hashes; the clients own the connection.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import httpx

from worldstereo_client import calls
from worldstereo_client.errors import IntegrityError, ServerUnreachable
from worldstereo_client.schemas import Artefact

# Connections that fetch the files of one scene; most of them are small.
PARALLEL_DOWNLOADS = 4


class Download:
    """An artefact and the file that it becomes.

    Bytes go into a partial file beside the target, named after the content's SHA-256, so that an
    interrupted download goes on where it was and never mixes two contents. A reader of the target
    never sees half a file.

    Args:
        scene_id: scene of the artefact.
        artefact: name, size and hash as the server announced them.
        folder: where the scene's files go; made when needed.

    Raises:
        IntegrityError: the artefact's name would lead out of ``folder``, or its hash is none.
    """

    def __init__(self, scene_id: str, artefact: Artefact, folder: Path) -> None:
        self.scene_id, self.artefact = scene_id, artefact
        self.target = target_path(folder, artefact.name)
        if not re.fullmatch(r"[0-9a-f]{64}", artefact.sha256):
            raise IntegrityError("no SHA-256", where=artefact.name, got=repr(artefact.sha256[:80]))
        self._partial = self.target.with_name(f".{self.target.name}.{artefact.sha256[:16]}.partial")

    def is_done(self) -> bool:
        """Whether the target has the announced size and SHA-256 already."""
        if not self.target.is_file() or self.target.stat().st_size != self.artefact.bytes:
            return False
        with self.target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.artefact.sha256

    def call(self) -> calls.Call[bytes]:
        """The request for the bytes that are not here yet."""
        start = self._partial.stat().st_size if self._partial.is_file() else 0
        return calls.artefact_bytes(self.scene_id, self.artefact.name, start)

    @property
    def is_received(self) -> bool:
        """Whether the partial file holds all bytes: only ``finish`` is missing."""
        return self._partial.is_file() and self._partial.stat().st_size >= self.artefact.bytes

    @contextmanager
    def receiving(self, response: httpx.Response) -> Iterator[Callable[[bytes], None]]:
        """Open the partial file at the place where the body of an answer to ``call`` belongs.

        Yields:
            The function that takes the body's bytes in order; it raises ``IntegrityError`` when
            there are more than announced.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        size = _start_of(response)
        # A server that ignores ranges sends the whole file: start anew.
        with self._partial.open("r+b" if size else "wb") as file:
            file.seek(size)
            file.truncate()

            def write(chunk: bytes) -> None:
                nonlocal size
                size += len(chunk)
                if size > self.artefact.bytes:
                    raise self._mismatch(f"at least {size} bytes")
                file.write(chunk)

            yield write

    def finish(self) -> Path:
        """Verify size and SHA-256 and move the file into place.

        Raises:
            ServerUnreachable: bytes are missing; those that are here are kept.
            IntegrityError: other bytes than announced; the partial file is removed.
        """
        size = self._partial.stat().st_size
        if size < self.artefact.bytes:
            raise ServerUnreachable(
                "the download ended early",
                where=self.artefact.name,
                got=f"{size} of {self.artefact.bytes} bytes",
            )
        with self._partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if (size, digest) != (self.artefact.bytes, self.artefact.sha256):
            raise self._mismatch(f"{size} bytes, sha256 {digest}")
        self._partial.replace(self.target)
        return self.target

    def _mismatch(self, got: str) -> IntegrityError:
        """The error for wrong bytes, which are removed: the next try starts from the first."""
        self._partial.unlink(missing_ok=True)
        return IntegrityError(
            "the received file is not the one that the server announced",
            where=self.artefact.name,
            got=got,
            allowed=f"{self.artefact.bytes} bytes, sha256 {self.artefact.sha256}",
            fix="download again; if it stays so, the server's storage is damaged",
        )


def target_path(folder: Path, name: str) -> Path:
    """Where the artefact ``name`` goes below ``folder``; IntegrityError if it would not be below.

    A server is not trusted with paths: relative, plain parts only, and no way out through a
    symbolic link that is there already.
    """
    parts = PurePosixPath(name).parts
    odd = ".." in parts or re.search(r"[\\\x00-\x1f]|^[A-Za-z]:", name)
    if not parts or name.startswith("/") or odd:
        raise IntegrityError("an artefact's name is no plain relative path", got=repr(name))
    target = folder.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise IntegrityError(
            "an artefact would be written outside of the folder",
            where=str(folder),
            got=str(target.parent.resolve()),
        )
    return target


def plan_downloads(
    scene_id: str, artefacts: list[Artefact], folder: Path, kinds: Collection[str] | None
) -> tuple[list[Download], list[Download]]:
    """What to fetch, of these kinds if given: (all other files, the manifest).

    The manifest goes last: where it lies, everything else does.
    """
    wanted = [item for item in artefacts if kinds is None or item.kind in kinds]
    files = [Download(scene_id, item, folder) for item in wanted if item.kind != "manifest"]
    return files, [Download(scene_id, item, folder) for item in wanted if item.kind == "manifest"]


def _start_of(response: httpx.Response) -> int:
    """First byte of a response's body within the file (RFC 9110, 14.4)."""
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return int(match[1]) if match else 0
