"""manifest.json of a result folder: every file with its size and sha256, written last.

Owns that one file and its verification. What else it says about the scene is the writer's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worldstereo.errors import LayoutError, MediaError
from worldstereo.formats.atomic import atomic_write_text, is_temporary

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class ManifestFile(BaseModel):
    """One file of a manifest: its path in the folder with ``/``, bytes and sha256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def to_json(value: object) -> str:
    """JSON with an indent of 2 and a final line break; NaN and infinity are errors."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_seen(path: Path) -> str:
    """As ``sha256_of``; a file that this process has read is not read again while it is as it was.

    Of files that are replaced and never written to: place, time and size tell them apart.
    """
    stat = path.stat()
    return _seen(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=20_000)
def _seen(path: Path, _inode: int, _modified_ns: int, _bytes: int) -> str:
    return sha256_of(path)


def _names(folder: Path) -> Iterator[str]:
    """Every file under a folder but the manifest and unfinished ones."""
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and not is_temporary(relative) and relative != Path(MANIFEST):
            yield relative.as_posix()


def _described(folder: Path, name: str) -> ManifestFile:
    path = folder / name
    return ManifestFile(name=name, bytes=path.stat().st_size, sha256=sha256_of(path))


def write_manifest(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write manifest.json over all files that are there now; call it last.

    Args:
        folder: the result folder.
        content: what else it shall say, JSON values; must not hold ``schema_version``, ``files``.

    Returns:
        The path of the manifest.
    """
    assert not {"schema_version", "files"} & set(content), sorted(content)
    files = [_described(folder, name).model_dump() for name in sorted(_names(folder))]
    text = to_json({"schema_version": SCHEMA_VERSION, **content, "files": files})
    atomic_write_text(folder / MANIFEST, text)
    return folder / MANIFEST


def read_manifest(folder: Path) -> tuple[dict[str, Any], list[ManifestFile]]:
    """The manifest of a folder, and its list of files.

    Raises:
        LayoutError: there is none, or it is not ours.
    """
    path = folder / MANIFEST
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        files = [ManifestFile.model_validate(entry) for entry in content["files"]]
    except OSError as problem:
        raise LayoutError(
            "the result has no manifest",
            where=str(path),
            got=str(problem.strerror),
            fix="it is written last: the scene is not finished",
        ) from problem
    except (ValueError, KeyError, TypeError, ValidationError) as problem:
        raise LayoutError(
            "the manifest does not read as it was written",
            where=str(path),
            got=f"{type(problem).__name__}: {str(problem)[:200]}",
        ) from problem
    return content, files


def verify_manifest(folder: Path) -> dict[str, Any]:
    """Compare every file of a folder with its manifest.

    A file that is not listed may lie beside a listed one of the same content: whoever fetched
    the results gave it another name, as the published scripts know it.

    Returns:
        The manifest.

    Raises:
        LayoutError: no manifest, a listed file that is missing, or another one that is not listed.
        MediaError: a file's size or hash is another than the manifest's.
    """
    content, files = read_manifest(folder)
    for file in files:
        relative = PurePosixPath(file.name)
        if relative.is_absolute() or ".." in relative.parts:
            raise LayoutError(
                "the manifest names a file outside its folder", where=MANIFEST, got=file.name
            )
        path = folder / relative
        if not path.is_file():
            raise LayoutError(
                "a file of the manifest is missing", where=file.name, got="no such file"
            )
        found = _described(folder, file.name)
        if found != file:
            raise MediaError(
                "a file is not what the manifest says",
                where=file.name,
                got=f"{found.bytes} bytes, sha256 {found.sha256}",
                allowed=f"{file.bytes} bytes, sha256 {file.sha256}",
            )
    listed = {file.name for file in files}
    contents = {(PurePosixPath(file.name).parent, file.sha256) for file in files}
    surplus = [
        name
        for name in sorted(_names(folder))
        if name not in listed
        and (PurePosixPath(name).parent, sha256_of(folder / name)) not in contents
    ]
    if surplus:
        raise LayoutError(
            "the folder holds files that the manifest does not list",
            where=surplus[0],
            got=f"{len(surplus)} such files",
            allowed="the listed files, and copies of them beside them under another name",
        )
    return content
